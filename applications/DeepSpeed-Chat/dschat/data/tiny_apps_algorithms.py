"""The harder problems of `tiny-apps`: loops, number theory, text and sequences."""

from __future__ import annotations

from collections.abc import Iterator

from dschat.data.tiny_apps_problems import Difficulty, Problem


def algorithm_problems() -> tuple[Problem, ...]:
    """The problems of this file, in a fixed order."""
    return (*_loops(), *_digits(), *_divisors(), *_words(), *_pairs_of_words(), *_sequences(), *_sums(), *_counting())


def _loops() -> Iterator[Problem]:
    level: Difficulty = "interview"
    yield Problem("up", "n", "the integers from 1 to n", "list(range(1, n + 1))", ((3,), [1, 2, 3]), level, largest=12)
    yield Problem("down", "n", "the integers from n to 1", "list(range(n, 0, -1))", ((2,), [2, 1]), level, largest=12)
    yield Problem("triangle", "n", "the sum of the integers from 1 to n", "n * (n + 1) // 2", ((4,), 10), level)
    for k in range(2, 21):
        yield Problem(
            "multiples", "n", f"the first n multiples of {k}", f"[{k} * i for i in range(1, n + 1)]",
            ((3,), [k, 2 * k, 3 * k]), level, largest=9,
        )  # fmt: skip
    yield Problem(
        "factorial", "n", "the product of the integers from 1 to n",
        """
        result = 1
        for i in range(2, n + 1):
            result *= i
        return result
        """,
        ((5,), 120), level, largest=15,
    )  # fmt: skip
    yield Problem(
        "fibonacci", "n", "the n-th of the numbers 1, 1, 2, 3, 5, ..., each the sum of the two before it",
        """
        a, b = 0, 1
        for _ in range(n):
            a, b = b, a + b
        return a
        """,
        ((6,), 8), level, largest=40,
    )  # fmt: skip


def _digits() -> Iterator[Problem]:
    level: Difficulty = "interview"
    yield Problem("binary", "n", "the integer n in binary", "bin(n)[2:]", ((6,), "110"), level)
    yield Problem(
        "digit_sum", "n", "the sum of the digits of the integer n", "sum(map(int, str(n)))", ((1203,), 6), level,
        largest=99_999,
    )  # fmt: skip
    yield Problem(
        "mirror", "n", "the integer n with its digits reversed, without leading zeros", "int(str(n)[::-1])",
        ((120,), 21), level, largest=9999,
    )  # fmt: skip
    yield Problem(
        "root", "n", "what is left when n is replaced by the sum of its digits until it has one digit",
        """
        while n > 9:
            n = sum(map(int, str(n)))
        return n
        """,
        ((987,), 6), level, largest=99_999,
    )  # fmt: skip


def _divisors() -> Iterator[Problem]:
    yield Problem(
        "divisors", "n", "how many integers from 1 to n divide n", "sum(n % i == 0 for i in range(1, n + 1))",
        ((6,), 4), "interview",
    )  # fmt: skip
    yield Problem(
        "gcd", "a b", "the greatest common divisor of a and b",
        """
        while b:
            a, b = b, a % b
        return a
        """,
        ((12, 18), 6), "interview", more=((40, 60), (7, 21)),
    )  # fmt: skip
    yield Problem(
        "lcm", "a b", "the least common multiple of a and b",
        """
        n = a
        while n % b:
            n += a
        return n
        """,
        ((4, 6), 12), "interview",
    )  # fmt: skip
    yield Problem(
        "prime", "n", "yes if the integer n is prime, else no",
        """
        if n < 2:
            return 'no'
        for i in range(2, int(n ** 0.5) + 1):
            if n % i == 0:
                return 'no'
        return 'yes'
        """,
        ((7,), "yes"), "interview", largest=200, more=((1,), (2,), (49,), (97,)),
    )  # fmt: skip
    yield Problem(
        "primes_below", "n", "how many primes are below the integer n",
        "sum(all(m % i for i in range(2, m)) for m in range(2, n))", ((10,), 4), "competition", largest=200,
    )  # fmt: skip
    yield Problem(
        "factors", "n", "the prime factors of the integer n in ascending order, repeated ones repeated",
        """
        result = []
        i = 2
        while n > 1:
            while n % i == 0:
                result.append(i)
                n //= i
            i += 1
        return result
        """,
        ((12,), [2, 2, 3]), "competition", smallest=2, largest=400,
    )  # fmt: skip


def _words() -> Iterator[Problem]:
    yield Problem(
        "palindrome", "word", "yes if the word is the same backwards, else no",
        "'yes' if word == word[::-1] else 'no'", (("level",), "yes"), "interview",
        more=(("abba",), ("abca",), ("x",), ("noon",), ("none",)),
    )  # fmt: skip
    yield Problem(
        "vowels", "word", "how many of the letters of the word are a, e, i, o or u",
        "sum(letter in 'aeiou' for letter in word)", (("banana",), 3), "interview", more=(("aeiou",), ("xyz",)),
    )  # fmt: skip
    for k in range(1, 13):
        yield Problem(
            "caesar", "word", f"the word with every letter moved {k} places on in the alphabet, a after z",
            f"''.join(chr((ord(letter) - 97 + {k}) % 26 + 97) for letter in word)",
            (("az",), "bcdefghijklm"[k - 1] + "abcdefghijkl"[k - 1]), "interview",
        )  # fmt: skip
    yield Problem(
        "runs", "word", "the word with each run of one letter written as the letter and its length",
        """
        result = ''
        while word:
            rest = word.lstrip(word[0])
            result += word[0] + str(len(word) - len(rest))
            word = rest
        return result
        """,
        (("aaab",), "a3b1"), "competition", more=(("aabbcc",), ("zzzz",), ("abab",)),
    )  # fmt: skip


def _pairs_of_words() -> Iterator[Problem]:
    yield Problem(
        "anagrams", "word other", "yes if both words have the same letters equally often, else no",
        "'yes' if sorted(word) == sorted(other) else 'no'", (("stale", "least"), "yes"), "interview",
        more=(("aab", "abb"), ("cat", "act"), ("night", "thing"), ("arm", "ram"), ("abc", "abd")),
    )  # fmt: skip
    yield Problem(
        "common", "word other", "how many different letters both words have", "len(set(word) & set(other))",
        (("cat", "taco"), 3), "interview", more=(("aabb", "bbcc"), ("aaa", "bbb")),
    )  # fmt: skip
    yield Problem(
        "subsequence", "word other", "yes if deleting letters of the other word can give the first, else no",
        """
        rest = iter(other)
        return 'yes' if all(letter in rest for letter in word) else 'no'
        """,
        (("ace", "abcde"), "yes"), "competition",
        more=(("aec", "abcde"), ("ab", "axb"), ("aa", "a"), ("cat", "carrot"), ("sun", "sultan")),
    )  # fmt: skip
    yield Problem(
        "edits", "word other", "the least number of letters to insert, delete or replace to make one word the other",
        """
        row = list(range(len(other) + 1))
        for i, x in enumerate(word, 1):
            last, row[0] = row[0], i
            for j, y in enumerate(other, 1):
                last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        return row[-1]
        """,
        (("kitten", "sitting"), 3), "competition", more=(("abc", "abd"), ("a", "abc")),
    )  # fmt: skip


def _sequences() -> Iterator[Problem]:
    yield Problem(
        "unique", "numbers", "the numbers without repetitions, in the order of their first occurrence",
        "list(dict.fromkeys(numbers))", (([3, 1, 3],), [3, 1]), "interview", more=(([7, 7, 7],), ([1, 2, 1, 2],)),
    )  # fmt: skip
    yield Problem(
        "steps", "numbers", "each number but the first minus the one before it",
        "[b - a for a, b in zip(numbers, numbers[1:])]", (([3, 1, 2],), [-2, 1]), "interview",
    )  # fmt: skip
    yield Problem(
        "second", "numbers", "the second largest of the different numbers", "sorted(set(numbers))[-2]",
        (([3, 9, 9],), 3), "interview", more=(([5, 5, 4],), ([1, 2],)),
    )  # fmt: skip
    yield Problem(
        "inversions", "numbers", "how many pairs of numbers are in the wrong order, the larger one first",
        "sum(a > b for i, a in enumerate(numbers) for b in numbers[i + 1:])", (([3, 1, 2],), 2), "competition",
    )  # fmt: skip
    yield Problem(
        "rising", "numbers", "the most numbers one can keep, in their order, so that each is above the one before",
        """
        best = []
        for i, n in enumerate(numbers):
            best.append(1 + max([best[j] for j in range(i) if numbers[j] < n], default=0))
        return max(best)
        """,
        (([3, 1, 2, 5, 4],), 3), "competition", more=(([5, 4, 3],), ([1, 2, 3, 4],), ([2, 2, 2],)),
    )  # fmt: skip


def _sums() -> Iterator[Problem]:
    yield Problem(
        "running", "numbers", "the sums of the first number, of the first two numbers, and so on",
        """
        result, total = [], 0
        for n in numbers:
            total += n
            result.append(total)
        return result
        """,
        (([3, 1, 2],), [3, 4, 6]), "interview",
    )  # fmt: skip
    yield Problem(
        "best_sum", "numbers", "the largest sum of neighbouring numbers, at least one of them",
        """
        best = run = numbers[0]
        for n in numbers[1:]:
            run = max(run + n, n)
            best = max(best, run)
        return best
        """,
        (([2, -3, 4, 1],), 5), "competition", smallest=-30, largest=30, more=(([-5, -2, -9],),),
    )  # fmt: skip
    for k in range(20, 105, 5):
        yield Problem(
            "pairs", "numbers", f"how many pairs of numbers have the sum {k}",
            f"sum(a + b == {k} for i, a in enumerate(numbers) for b in numbers[i + 1:])",
            (([5, k - 5, 5],), 2), "competition",
            more=(([k // 2, k - k // 2, k // 2],), ([1, k - 1],), ([2, k - 2, 3, k - 3],)),
        )  # fmt: skip
        yield Problem(
            "fit", "numbers", f"the largest sum of some of the numbers that is at most {k}, 0 if none is",
            f"""
            sums = {{0}}
            for n in numbers:
                sums |= {{s + n for s in sums if s + n <= {k}}}
            return max(sums)
            """,
            (([k, k - 1, 2],), k), "competition", more=(([k + 1, 3],), ([k + 1],)),
        )  # fmt: skip


def _counting() -> Iterator[Problem]:
    yield Problem(
        "collatz", "n", "how many steps lead from n to 1, where a step halves an even n and makes 3n+1 of an odd one",
        """
        steps = 0
        while n > 1:
            n = 3 * n + 1 if n % 2 else n // 2
            steps += 1
        return steps
        """,
        ((6,), 8), "competition", largest=500,
    )  # fmt: skip
    yield Problem(
        "stairs", "n", "the number of ways to climb n steps, one or two at a time",
        """
        a, b = 1, 1
        for _ in range(n):
            a, b = b, a + b
        return a
        """,
        ((4,), 5), "competition", largest=40,
    )  # fmt: skip
    yield Problem(
        "paths", "a b", "the number of ways right and down from corner to corner of a grid of a by b squares",
        """
        row = [1] * b
        for _ in range(a - 1):
            for j in range(1, b):
                row[j] += row[j - 1]
        return row[-1]
        """,
        ((3, 3), 6), "competition", largest=12,
    )  # fmt: skip
