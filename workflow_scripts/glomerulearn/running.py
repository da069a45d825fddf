"""How a step runs as a job: where its log goes, how it shows progress."""

import logging
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from glomerulearn.errors import InputError

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def logged(path: str) -> Iterator[None]:
    """Send logging, warnings and the traceback of whatever goes wrong in the block to the file `path`.

    A training keeps the files of all its slides open, so the job may open as many as the system lets it.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # some systems call no limit what is none they can set
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Path(path).write_text("")
    handler = logging.FileHandler(path)  # appends, as the processes of a training on several GPUs do
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except InputError as error:
        # the user's to mend: the message says it all, a traceback would bury it
        logging.error("%s", error)
        sys.exit(f"Error: {error}")
    except BaseException:
        logging.error("%s", traceback.format_exc())
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def bar(title: str) -> Callable:
    """A progress bar for an iterable, shown on a terminal only."""
    return lambda items: tqdm(items, desc=title, disable=None, leave=False)
