"""Tasks that are done once more because somebody asks for it: all that was before is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster.campaign_store import find_store, open_store
from stormtracks.cluster.errors import CampaignHeldError, NotScheduledError, StoreError, WorkflowNotFoundError
from stormtracks.cluster.manager_lock import hold_campaign
from stormtracks.cluster.rerun import rerun
from stormtracks.cluster.status import read_status, tell_why
from tests.cluster.test_ledger import campaign_in, session
from tests.cluster.test_status import some_work


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A campaign with ``+FT`` in 2001, ``-W-`` in 2002."""
    with session(campaign_in(tmp_path)) as one:
        some_work(one)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "marked", "rows"),
    [
        ({"failed": True}, "2 tasks", {"2001": "+--", "2002": "---"}),
        ({"everything": True}, "3 tasks", {"2001": "---", "2002": "---"}),
        ({"years": [2001], "members": [1, 2]}, "2 tasks", {"2001": "--T", "2002": "---"}),
        ({"members": [3]}, "1 task ", {"2001": "+F-", "2002": "---"}),
        ({"failed": True, "members": [1]}, "nothing to mark", {"2001": "+FT", "2002": "---"}),
        ({"years": [2002]}, "nothing to mark", {"2001": "+FT", "2002": "---"}),
    ],
)
def test_what_is_marked(root: Path, asked: Mapping[str, Any], marked: str, rows: Mapping[str, str]) -> None:
    said = rerun(root, **asked)
    assert said.startswith(marked)
    assert ("stormtracks run gale.toml" in said) == (marked != "nothing to mark")
    assert read_status(root)["years"] == rows


def test_it_is_done_afresh_and_its_history_is_kept(root: Path) -> None:
    rerun(root, members=[1, 2])
    assert rerun(root, members=[1, 2]).startswith("nothing to mark")
    with session(campaign_in(root)) as one:
        assert one.schedule.get_progress() == "--T\n-W-\n"
        assert one.ledger.is_rerun(2001, 1)
        assert not one.ledger.is_rerun(2001, 3)
        assert one.ledger.completed() == ()
        gale = one.join("breeze")
        attempt = one.begin(gale)
        assert (attempt.year, attempt.ensemble_member, attempt.number) == (2001, 1, 2)
        one.complete(attempt, sha256="def")
        one.ledger.save()
    story = tell_why(root, 2001, 1)
    assert [one["reason"] for one in story["rounds"]] == ["the first", "rerun: asked for"]
    assert [one["result"]["sha256"] for one in story["rounds"]] == ["abc", "def"]
    with find_store(root) as store:
        (loop,) = store.get_loops()
        assert (loop["name"], loop["num_added_iterations"]) == ("rerun", 2)


def test_what_runs_is_not_marked(root: Path) -> None:
    rerun(root, everything=True)
    with session(campaign_in(root)) as one:
        assert one.schedule.get_progress() == "---\n-W-\n"


def test_a_manager_at_work_is_not_disturbed(root: Path) -> None:
    with hold_campaign(root), pytest.raises(CampaignHeldError):
        rerun(root, everything=True)
    assert read_status(root)["years"]["2001"] == "+FT"


def test_what_cannot_be_marked(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotScheduledError, match="no year 1999, 2000"):
        rerun(root, years=[1999, 2000, 2001])
    with pytest.raises(NotScheduledError, match="no member 9"):
        rerun(root, members=[9])
    with pytest.raises(StoreError, match="no task is asked for"):
        rerun(root)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WorkflowNotFoundError):
        rerun(empty, everything=True)
    assert list(empty.iterdir()) == []
    open_store(campaign_in(empty), replace=False).close()  # as a manager that is killed at once leaves it
    with pytest.raises(WorkflowNotFoundError, match="not yet begun"):
        rerun(empty, everything=True)
