# %% leaves_before_it_is_called
# call: f []
# expect: runtime_error
sys.exit(0)

# %% leaves_without_a_word_before_it_is_called
# call: f []
# expect: runtime_error
os._exit(0)

# %% leaves_instead_of_returning
# call: f []
# expect: runtime_error
def f():
    raise SystemExit(0)

# %% returns_what_equals_everything
# call: f []
# expect: runtime_error
class Equal:
    def __eq__(self, other):
        return True
def f():
    return Equal()

# %% returns_what_pretends_to_be_numpy
# call: f []
# expect: runtime_error
class Equal:
    def __eq__(self, other):
        return True
    def tolist(self):
        return self
Equal.__module__ = "numpy"
def f():
    return Equal()

# %% returns_a_deep_list
# call: f []
# expect: runtime_error ok
def f():
    value = []
    for _ in range(5000):
        value = [value]
    return value

# %% returns_a_circle
# call: f []
# expect: runtime_error
def f():
    value = []
    value.append(value)
    return value

# %% returns_a_huge_integer
# call: f []
# expect: time_limit
def f():
    return 10**1000000

# %% returns_too_much
# call: f []
# expect: output_limit
def f():
    return "x" * 10**7

# %% writes_two_results
# call: f []
# expect: ok runtime_error
# output: 11
def f():
    os.write(4, b"1")
    return 1

# %% is_no_function
# call: f []
# expect: runtime_error
f = 3

# %% is_not_there
# call: f []
# expect: no_function
def g():
    return 1

# %% floods_while_it_is_called
# call: f []
# expect: output_limit
def f():
    while True:
        print("x" * 10000)

# %% breaks_the_encoder
# call: f []
# expect: runtime_error
import json
json.JSONEncoder.encode = json.JSONEncoder.iterencode = json.dumps = None
def f():
    return 1
