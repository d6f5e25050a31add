"""User ids for sandboxes: one each, and given back."""

from __future__ import annotations

from dschat.code_execution import spare_user
from dschat.code_execution.spare_user import SpareUser


def test_ids_are_one_processes_own_until_they_are_released(monkeypatch) -> None:
    monkeypatch.setattr(spare_user, "_FIRST", 61000)  # of nobody's sandbox
    first, second = SpareUser(), SpareUser()
    try:
        assert first.uid != second.uid
        first.release()
        third = SpareUser()
        assert third.uid == first.uid
        third.release()
    finally:
        second.release()


def test_ids_of_real_users_are_passed_over(monkeypatch) -> None:
    monkeypatch.setattr(spare_user, "_FIRST", 61000)
    monkeypatch.setattr(spare_user, "_known", lambda uid: uid < 61005)
    user = SpareUser()
    user.release()
    assert user.uid >= 61005
