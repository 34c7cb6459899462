"""A campaign's store: the documented calls, of which every kind of store has the same.

The manager is the only writer. What it changes is pending until `save` puts all of it on disk together; others may read
while it writes. The schema is in `rows`, and what a kind of store must bring along in `rowstore`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from operator import index as whole
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, overload

from stormtracks.cluster.errors import ParameterSetError, StoreError, WorkflowNotFoundError
from stormtracks.cluster.persistence.elements import ElementStore
from stormtracks.cluster.persistence.folders import (
    discard_dir,
    dropbox_retry_fail,
    new_folder,
    remove_dir,
    rename_dir,
)
from stormtracks.cluster.persistence.rows import (
    TS_FMT,
    Attempt,
    Campaign,
    Iteration,
    Loop,
    Parameter,
    Submission,
    iteration_status,
    to_json,
    to_text,
    to_time,
)
from stormtracks.cluster.persistence.rowstore import Workflow
from stormtracks.cluster.persistence.shapes import from_json, merged

__all__ = [
    "PersistentStore",
    "PersistentStoreFeatures",
    "Workflow",
    "dropbox_retry_fail",
    "remove_dir",
    "rename_dir",
]


@dataclass(frozen=True)
class PersistentStoreFeatures:
    """What a kind of store can be used for.

    Parameters
    ----------
    jobscript_parallelism : bool
        Whether several workers can work for the campaign at the same time.
    EAR_parallelism : bool
        Whether several attempts can be under way at the same time.
    schedulers : bool
        Whether the workers may be jobs of a scheduler.
    submission : bool
        Whether a manager can work on it at all; else it is an archive, to be converted first.
    """

    jobscript_parallelism: bool = False
    EAR_parallelism: bool = False
    schedulers: bool = False
    submission: bool = False


class PersistentStore(ElementStore):
    """A campaign's store, opened.

    A *workflow* is a campaign, its *template* the frozen settings, its *template components* what was seen at work
    (versions, processors); a *parameter* is a slot that is written once, such as the result of an element's iteration;
    a *loop* the rounds of a rerun; a *submission* one start of a manager, and a *jobscript* one worker of it.

    Parameters
    ----------
    workflow : Workflow
        The campaign, by the folder of its store.

    Raises
    ------
    WorkflowNotFoundError
        If there is no store of this kind in the folder.
    StoreDamagedError
        If the store was cut short or changed by something else.
    StoreError
        If it is of a version that is not known here, or the disk does not let it be read.
    """

    format: ClassVar[str]
    _features: ClassVar[PersistentStoreFeatures]

    def __init__(self, workflow: Workflow) -> None:
        self._drafts: dict[int, dict[str, Any]] = {}
        super().__init__(workflow)

    # --- the store as a whole

    @classmethod
    @abstractmethod
    def path_has_store(cls, path: Path) -> bool:
        """Whether a folder holds a store of this kind."""

    @property
    @abstractmethod
    def store_path(self) -> Path:
        """Where the store itself lies, in or as the campaign's folder."""

    @classmethod
    @abstractmethod
    def create_in(cls, folder: Path, campaign: Campaign) -> None:
        """For those who make a store: write one with this one row, of revision 0, into an empty folder."""

    @abstractmethod
    def _copy_into(self, folder: Path) -> None:
        """Write a copy of the store as it is on disk into an empty folder."""

    @property
    def features(self) -> PersistentStoreFeatures:
        """What this kind of store can be used for."""
        return self._features

    @property
    def store_name(self) -> str:
        """Name of this kind of store: ``sqlite``, ``json`` or ``zarr``."""
        return self.format

    @property
    def ts_fmt(self) -> str:
        """How times are written in the store."""
        return TS_FMT

    def exists(self) -> bool:
        """Whether the store is still there."""
        return self.path_has_store(self.workflow_path)

    def copy(self, path: str | PathLike[str] | None = None) -> Path:
        """Copy the store as it is on disk; a manager may be at work on it meanwhile.

        Parameters
        ----------
        path : path, optional
            Folder that shall be made; the campaign's folder with ``.copy`` added to its name (``.copy2``, ...).

        Returns
        -------
        Path
            The folder of the copy.

        Raises
        ------
        StoreError
            If there is something at `path`.
        """
        target = next(iter(self._copy_paths())) if path is None else Path(path)
        with new_folder(target) as folder:
            self._copy_into(folder)
        return target

    def _copy_paths(self) -> Iterator[Path]:
        names = (f"{self.workflow_path.name}.copy{number if number > 1 else ''}" for number in count(1))
        return (path for name in names if not (path := self.workflow_path.with_name(name)).exists())

    def delete(self, *, confirm: Callable[[str], str] = input) -> None:
        """Delete the campaign's store, if the answer to the question whether to is yes.

        Parameters
        ----------
        confirm : callable
            Puts the question and gives the answer; asks on the terminal by default.
        """
        answer = confirm(f"Delete the campaign in {self.workflow_path} for good? [y/N] ")
        if answer.strip().lower() in ("y", "yes"):
            self.delete_no_confirm()

    def delete_no_confirm(self) -> None:
        """Delete the campaign's store, with its folder and without a question."""
        self.close()
        discard_dir(self.workflow_path)

    # --- creation

    @classmethod
    def write_empty_workflow(
        cls,
        template_js: Mapping[str, Any],
        template_components_js: Mapping[str, Any],
        workflow_path: Path,
        replaced_dir: Path | None,
        creation_info: Mapping[str, Any],
    ) -> None:
        """Make a store without tasks; it is there as a whole or not at all.

        Parameters
        ----------
        template_js, template_components_js : dict
        workflow_path : Path
            Folder that shall be made.
        replaced_dir : Path or None
            What `temporary_workflow_rename` gave. Unless `remove_replaced_dir` is reached, this campaign is not
            finished, and `recover_replaced` puts the older one back.
        creation_info : dict

        Raises
        ------
        StoreError
            If there is something at `workflow_path`.
        """
        campaign = Campaign(
            idx=0,
            template=to_json(dict(template_js), "the template"),
            components=to_json(dict(template_components_js), "the template components"),
            creation_info=to_json(dict(creation_info), "the creation info"),
            replaced=replaced_dir.name if replaced_dir is not None else "",
        )
        with new_folder(Path(workflow_path)) as folder:
            cls.create_in(folder, campaign)

    @property
    def replaced_dir(self) -> Path | None:
        """The older campaign that waits for this one to be finished, if there is one."""
        name = self._campaign.replaced
        return self.workflow_path.with_name(name) if name else None

    def remove_replaced_dir(self) -> None:
        """Finish the creation of this campaign: commit all that is pending and remove the one that it replaces."""
        replaced = self.replaced_dir
        if replaced is None:
            self.save()
            return
        # From this commit on the new campaign is the one that is kept.
        self._pending.change(self._campaign._replace(replaced=""))
        self.save()
        remove_dir(replaced)

    def reinstate_replaced_dir(self) -> None:
        """Give up this campaign and put the one that it should have replaced back; the store is closed."""
        replaced = self.replaced_dir
        if replaced is None:
            raise StoreError(
                f"the campaign in {self.workflow_path} replaces none", remedy="delete it, if it is not wanted"
            )
        self.close()
        discard_dir(self.workflow_path)
        rename_dir(replaced, self.workflow_path)

    # --- template

    @property
    def _campaign(self) -> Campaign:
        return self._get(Campaign, 0)

    def get_template(self) -> dict[str, Any]:
        """The frozen settings of the campaign."""
        return dict(from_json(self._campaign.template))

    def get_creation_info(self) -> dict[str, Any]:
        """How the campaign was created."""
        return dict(from_json(self._campaign.creation_info))

    def get_template_components(self) -> dict[str, Any]:
        """What was seen at work, pending additions included."""
        return dict(from_json(self._campaign.components))

    def add_template_components(self, template_components: Mapping[str, Any]) -> None:
        """Add to what was seen at work; a name that is there already gets the new value."""
        campaign = self._campaign
        components = merged(campaign.components, template_components, "the template components")
        self._pending.change(campaign._replace(components=components))

    # --- parameters

    def add_parameter_data(self, data: Any, source: Mapping[str, Any]) -> int:
        """Add a slot that is set already; gives its index."""
        return self._add_parameter(1, to_json(data, "the value of a parameter"), source)

    def add_unset_parameter_data(self, source: Mapping[str, Any]) -> int:
        """Add a slot that `set_parameter` shall set; gives its index."""
        return self._add_parameter(0, "null", source)

    def _add_parameter(self, is_set: int, data: str, source: Mapping[str, Any]) -> int:
        text = to_json(dict(source), "the source of a parameter")
        index = self._take_next(Parameter)
        self._pending.add(Parameter(index, is_set, data, text, None, None))
        return index

    def set_parameter(self, index: int, data: Any) -> None:
        """Set a slot; that of an iteration completes it.

        Raises
        ------
        ParameterSetError
            If it has been set before, pending values included. It is a RuntimeError, too.
        StoreError
            If there is no such slot, or JSON cannot hold the value.
        """
        slot = self._get(Parameter, index)
        if slot.is_set:
            raise self._set_already_error(index)
        self._pending.change(slot._replace(is_set=1, data=to_json(data, f"the value of parameter {index}")))
        if slot.task is not None and slot.iteration is not None:
            iteration = self._get(Iteration, slot.task, slot.iteration)
            last = self._next(Attempt, slot.task, slot.iteration) - 1
            attempt = self._find(Attempt, slot.task, slot.iteration, last) if last >= 0 else None
            self._pending.change(iteration._replace(status=iteration_status(True, attempt)))

    def _set_already_error(self, index: int) -> ParameterSetError:
        return ParameterSetError(
            f"parameter {index} of the campaign in {self.workflow_path} has been set already",
            remedy="a value is written once: add another parameter, or a new iteration",
        )

    def get_parameter_data(self, index: int) -> tuple[bool, Any]:
        """Whether a slot is set, and its value: None until it is."""
        slot = self._get(Parameter, index)
        return bool(slot.is_set), from_json(slot.data)

    def get_all_parameter_data(self) -> dict[int, tuple[bool, Any]]:
        """All slots by their index, each as `get_parameter_data` gives it."""
        return {slot.idx: (bool(slot.is_set), from_json(slot.data)) for slot in self._rows(Parameter)}

    def get_parameter_source(self, index: int) -> dict[str, Any]:
        """Where the value of a slot comes from."""
        return dict(from_json(self._get(Parameter, index).source))

    def is_parameter_set(self, index: int) -> bool:
        """Whether a slot is set."""
        return bool(self._get(Parameter, index).is_set)

    @overload
    def check_parameters_exist(self, indices: int) -> bool: ...

    @overload
    def check_parameters_exist(self, indices: list[int]) -> list[bool]: ...

    def check_parameters_exist(self, indices: int | list[int]) -> bool | list[bool]:
        """Whether there is a slot of this index; for a list of indices, of each."""
        number = self._next(Parameter)
        if isinstance(indices, int):
            return 0 <= indices < number
        return [0 <= index < number for index in indices]

    # --- loops

    def add_loop(
        self, task_indices: list[int], loop_js: Mapping[str, Any], iterable_parameters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Add a loop over tasks: rounds that iterations can be added for. Its index is the number of loops before."""
        document = {
            **loop_js,
            "task_indices": list(task_indices),
            "iterable_parameters": {name: dict(value) for name, value in iterable_parameters.items()},
        }
        self._pending.add(Loop(self._take_next(Loop), to_json(document, "the loop"), 0))

    def get_loops(self) -> list[dict[str, Any]]:
        """All loops: what was given to `add_loop`, ``index`` and ``num_added_iterations``."""
        return [
            {**from_json(loop.document), "index": loop.idx, "num_added_iterations": loop.added}
            for loop in self._rows(Loop)
        ]

    def update_loop_num_added_iters(self, loop_idx: int, num_added_iters: int) -> None:
        """Say how many iterations were added for a loop, in all."""
        self._pending.change(self._get(Loop, loop_idx)._replace(added=whole(num_added_iters)))

    # --- submissions

    def add_submission(self, submission_js: Mapping[str, Any]) -> None:
        """Add a start of a manager. Its index is the number of submissions before."""
        document = {**submission_js, "submission_attempts": [], "jobscripts": []}
        self._pending.add(Submission(self._take_next(Submission), to_json(document, "the submission")))

    def get_submissions(self) -> list[dict[str, Any]]:
        """All submissions: what was given to `add_submission`, and ``index``, ``submission_attempts``, ``jobscripts``.

        ``submission_attempts`` lists the indices of jobscripts as they joined; ``jobscripts`` are dictionaries of
        ``index``, ``job_ID``, ``submit_time`` (aware) and ``version_info``, as far as these were given.
        """
        return [self._submission_shape(row) for row in self._rows(Submission)]

    @staticmethod
    def _submission_shape(row: Submission) -> dict[str, Any]:
        shape = {**from_json(row.document), "index": row.idx}
        for jobscript in shape["jobscripts"]:
            if "submit_time" in jobscript:
                jobscript["submit_time"] = to_time(jobscript["submit_time"])
        return shape

    def append_submission_attempt(self, sub_idx: int, submitted_js_idx: int) -> None:
        """A worker of a submission has joined."""
        self._draft_of(sub_idx)["submission_attempts"].append(whole(submitted_js_idx))

    def set_jobscript_job_ID(self, sub_idx: int, js_idx: int, job_ID: int | str) -> None:
        """Say what the job of a worker is called: its incarnation, or a scheduler's number."""
        self._change_jobscript(sub_idx, js_idx, job_ID=job_ID)

    def set_jobscript_submit_time(self, sub_idx: int, js_idx: int, submit_time: datetime) -> None:
        """Say when a worker was started, or joined."""
        self._change_jobscript(sub_idx, js_idx, submit_time=to_text(submit_time))

    def set_jobscript_version_info(self, sub_idx: int, js_idx: int, vers_info: tuple[Any, ...]) -> None:
        """Say which versions a worker has."""
        self._change_jobscript(sub_idx, js_idx, version_info=list(vers_info))

    def _change_jobscript(self, sub_idx: int, js_idx: int, **values: Any) -> None:
        plain = from_json(to_json(values, "the submission"))
        jobscripts = self._draft_of(sub_idx)["jobscripts"]
        if not 0 <= js_idx <= len(jobscripts):
            raise StoreError(
                f"submission {sub_idx} cannot have a jobscript {js_idx}: it has {len(jobscripts)}",
                remedy="number jobscripts from 0 without a gap",
            )
        if js_idx == len(jobscripts):
            jobscripts.append({"index": js_idx})
        jobscripts[js_idx] |= plain

    def _draft_of(self, sub_idx: int) -> dict[str, Any]:
        """The document of a submission, to be changed; its text is made once for all changes."""
        if sub_idx not in self._drafts:
            row = self._get(Submission, sub_idx)
            self._pending.change(row)
            self._drafts[sub_idx] = dict(from_json(row.document))
        return self._drafts[sub_idx]

    def _write_out_drafts(self) -> None:
        drafts, self._drafts = self._drafts, {}
        for index, document in drafts.items():
            row = self._get(Submission, index)
            self._pending.change(row._replace(document=to_json(document, "the submission")))

    def clear_pending(self) -> None:
        """Drop the pending changes."""
        self._drafts = {}
        super().clear_pending()

    @classmethod
    def _not_found(cls, path: Path) -> WorkflowNotFoundError:
        return WorkflowNotFoundError(
            f"there is no campaign store of the kind {cls.format!r} in {path}",
            remedy="name the folder given as --out (or results.root) when the campaign was run",
        )
