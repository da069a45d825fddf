"""One training on several GPUs of a machine: a process each, started by PyTorch's own launcher, kept in step by DDP."""

import logging
import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from glomerulearn.errors import InputError
from glomerulearn.running import LOG_FORMAT


def place() -> tuple[int, int]:
    """Which of how many processes that train one network together this is: (0, 1) where it trains alone."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def as_leader_says(value):
    """The first process's `value`, in all of them."""
    if place()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def run_together(
    count: int, work: Callable, arguments: dict, backend: str = "nccl", log_file: str | None = None
) -> None:
    """Call `work(**arguments, device=...)` in `count` processes, one per GPU (backend `nccl`) or on the CPU (`gloo`).

    work: a function of a module, which other processes can import. log_file: where the first process's log goes.
    Raises: the InputError that a process raised; of anything else the launcher's own error.
    """
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0
    )
    try:
        elastic_launch(launch, _member)(work, arguments, backend, log_file)
    except ChildFailedError as error:
        said = error.get_first_failure()[1].message  # text where the process was killed, else what it raised
        kind, _, message = (said if isinstance(said, str) else said["message"]).partition(": ")
        if kind == InputError.__name__:
            raise InputError(message) from error
        raise


def _member(work: Callable, arguments: dict, backend: str, log_file: str | None) -> None:
    local = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    if local == 0 and log_file:
        logging.basicConfig(filename=log_file, level=logging.INFO, format=LOG_FORMAT)
    dist.init_process_group(backend)
    try:
        work(**arguments, device=device)
    finally:
        dist.destroy_process_group()
