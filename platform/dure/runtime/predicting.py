"""Predicting a table in this process, or with workers of a cluster through Ray Data."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.families import trusting
from dure.config.schema import Profile
from dure.errors import DureError, UserError
from dure.events import Notify
from dure.family.predicted_blocks import PredictedBlocks
from dure.family.predicting import predict_rows
from dure.family.predicting_tables import Predictor, check_files, predict_file, rows_of
from dure.runtime.cluster import cluster, cluster_of_job
from dure.runtime.placement import Resources, amounts, choose_profile, room_for, worker_resources

if TYPE_CHECKING:
    import datasets
    import pyarrow

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Who predicts a table."""

    profile: str | Profile | None = None
    """The machine: a profile, or its name or file; recognised when not given."""
    workers: int | None = None
    """So many processes of a Ray cluster; this one when not given."""
    address: str | None = None
    """Cluster of the workers; an own one on this machine when not given."""
    trust_code: bool = False
    """Whether families are imported that did not come with dure."""


def predict_table(
    runs: Sequence[Path],
    source: str,
    output: str | Path | None,
    *,
    where: Where,
    overrides: Sequence[str],
    force: bool,
    resume: bool,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> dict[str, Any]:
    """Predict a table as :func:`~dure.family.predicting_tables.predict_file` does, here or with workers.

    Raises:
        UserError: See there; or no file is named, or the workers have no cluster or no room.
    """
    if where.workers is None and where.address not in (None, cluster_of_job()):
        raise UserError(
            "an address is given, but no workers that would predict there",
            where=f"--address {where.address}",
            hint="--workers N with it, or neither",
        )
    if resume and output is not None and (said := PredictedBlocks(Path(output)).finished()) is not None:
        return said
    files: dict[str, Any] = {"overrides": overrides, "force": force, "resume": resume}
    # What is wrong with the files is told before torch looks for the machine.
    output = check_files(runs, source, output, **files)
    profile = choose_profile(where.profile, notify, address=where.address if where.workers else None)
    heard: dict[str, Any] = {"profile": profile, "progress": progress, "notify": notify}
    if where.workers is None:
        return predict_file(runs, source, output, **files, **heard)
    with Workers(where, profile, path=PredictedBlocks(output).folder, notify=notify) as workers:
        return predict_file(runs, source, output, **files, **heard, spread=workers)


class Workers:
    """Processes that predict, on a cluster that is joined or started with the first block and left with the context.

    This machine reads and encodes the rows; blocks of them stream through Ray's object store, so that only the folder of
    the run must be where every node sees it. A block whose worker or node was lost is predicted again by another.
    """

    def __init__(self, where: Where, profile: Profile, *, path: Path, notify: Notify) -> None:
        self._number, self._where, self._profile = where.workers or 1, where, profile
        self._path, self._notify = path, notify
        self._stack = ExitStack()
        self._is_connected = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def __call__(
        self, predictor: Predictor, encoded: datasets.Dataset, blocks: Sequence[int]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Predict blocks of encoded rows; gives each one's number with its predictions as they are done."""
        self._connect(predictor)
        import ray
        from ray.data import TaskPoolStrategy, from_items

        needs = worker_resources(self._profile)
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        predicted = (
            from_items([{"block": block} for block in blocks], override_num_blocks=len(blocks))
            # The memory-mapped rows lie here. Reading takes no CPU from the workers, who may need all; without a bound
            # Ray Data would start a process for each block then.
            .map(
                partial(_packed, encoded=encoded),
                num_cpus=0,
                label_selector=here,
                compute=TaskPoolStrategy(size=self._number),
            )
            .map_batches(
                _Worker,
                fn_constructor_args=(predictor, self._where.trust_code),
                batch_size=1,
                batch_format="pyarrow",
                concurrency=min(self._number, len(blocks)),
                num_cpus=needs["CPU"],
                num_gpus=needs.get("GPU", 0),
            )
        )
        try:
            for row in predicted.iter_rows():
                yield row["block"], json.loads(row["predictions"])
        except Exception as error:
            from dure.runtime.deaths import causes

            # What a worker raised is wrapped by Ray.
            raise next((each for each in causes(error) if isinstance(each, DureError)), error) from error

    def _connect(self, predictor: Predictor) -> None:
        """Join or start the cluster, once."""
        if self._is_connected:
            return
        nodes = self._stack.enter_context(
            cluster(self._where.address, name="dure predict", path=self._path)
        ).nodes
        _require_room(self._number, self._profile, nodes)
        cpus = self._profile.cpus_per_worker
        if self._profile.device == "cpu" and predictor.threads > cpus:
            self._notify(
                f"every worker computes with {predictor.threads} threads, as one process does here, and has {cpus:g} CPU; "
                f"OMP_NUM_THREADS={max(1, int(cpus))} gives it as many"
            )
        from ray.data import DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._is_connected = True


class _Worker:
    """One process of Ray Data's; loads its model with the first block, so that what fails is reported as an error of that."""

    def __init__(self, predictor: Predictor, trust_code: bool) -> None:
        self._predictor, self._trust_code = predictor, trust_code
        self._loaded: tuple[Any, ...] | None = None

    def __call__(self, batch: pyarrow.Table) -> dict[str, list[Any]]:
        import datasets

        if self._loaded is None:
            with trusting(self._trust_code):
                family = self._predictor.family(logger.info)
                self._loaded = (family, *self._predictor.load(family, logger.info))
        rows = datasets.Dataset.from_buffer(batch["rows"][0].as_buffer())
        family, model, tokenizer = self._loaded
        found = predict_rows(family, model, tokenizer, rows)
        return {"block": batch["block"].to_pylist(), "predictions": [json.dumps(found)]}


def _packed(item: dict[str, Any], *, encoded: datasets.Dataset) -> dict[str, Any]:
    """Return the rows of a block as one value, which Ray Data cannot split."""
    import pyarrow

    rows = rows_of(encoded, int(item["block"])).data.table
    stream = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_table(rows)
    return {"block": item["block"], "rows": stream.getvalue().to_pybytes()}


def _require_room(number: int, profile: Profile, nodes: Sequence[Resources]) -> None:
    """Check that a cluster holds so many workers once it is free."""
    needs = worker_resources(profile)
    room = room_for(profile, nodes)
    if room < number:
        raise UserError(
            f"{number} workers need {amounts(needs)} each, and the cluster holds {room}",
            where="--workers",
            expected=f"at most {room}" if room else f"a cluster whose nodes have {amounts(needs)}",
            hint=f"--workers {room}" if room else "another --profile",
        )
