"""What can be seen to be wrong before a process is started or a weight is loaded: base, encoder, data."""

from __future__ import annotations

from ..base.encoder import check_encoder
from ..base.files import BaseFiles
from ..base.whole import check_base
from ..data.sources import find_format, open_source, parts_of
from ..settings.config import Config
from ..settings.families import trained_family


def preflight(config: Config) -> None:
    """Raises ValueError, in a sentence, for what a training would stumble over later."""
    needs_parts = not config.data.cache or config.run.sample_every_steps > 0
    check_base(BaseFiles(config.model), needs_parts)
    if trained_family(config.adapter.family)[0].feature:
        check_encoder(config.model.encoder, config.model.encoder_architecture)
    # the headers of many shards are read once, by the processes that train
    for one in parts_of(config.data):
        if find_format(one) != "webdataset":
            open_source(one)
