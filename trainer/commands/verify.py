"""`python -m trainer cache CONFIG --verify`: whether the files of a cache are those that were written."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm.auto import tqdm

from ..data.shards import PART, Shards, missing_files, read_part, shard_path
from ..settings.config import Config

logger = logging.getLogger(__name__)

NAMED = 10  # damaged files in the message


def verify_cache(config: Config) -> None:
    """Read every file of every part of data.cache and compare it with its checksum; the training need not fit.

    Raises ValueError when there is no cache, or a file is missing, damaged or has other bytes, naming them.
    """
    folder = Path(config.data.cache)
    parts = sorted(path.parent for path in folder.glob(f"*/{PART}")) if config.data.cache else []
    if not parts:
        raise ValueError(f"there is no cache in data.cache = {config.data.cache!r}: give its folder")
    damaged, unknown, count = [], 0, 0
    for part in parts:
        shards, made = Shards(part), read_part(part)
        missing = set(missing_files(part, made or {}))
        for number in tqdm(range(shards.count), desc=part.name, unit="file", dynamic_ncols=True):
            count += 1
            is_whole = number not in missing and _is_whole(shards, number)
            unknown += is_whole is None
            if is_whole is False:
                damaged.append(shard_path(part, number))
    if damaged:
        names = ", ".join(str(path) for path in damaged[:NAMED])
        more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
        raise ValueError(
            f"{len(damaged)} of {count} files of the cache {folder} are missing or not as they were written: "
            f"{names}{more}; delete them and run python -m trainer cache again"
        )
    logger.info(
        "%s: %d files, all as they were written%s",
        folder, count, f" but {unknown} of an older version without a checksum" if unknown else "",
    )  # fmt: skip


def _is_whole(shards: Shards, number: int) -> bool | None:
    try:
        return shards.is_whole(number)
    except ValueError:
        return False
