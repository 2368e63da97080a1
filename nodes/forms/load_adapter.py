"""Load IP-Adapter: any file, known by its content."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...ipadapter_core import VARIANTS, describe, headline
from ...ipadapter_core.facts.variants import AUTO
from .. import folders
from ..find import adapter_facts
from ..models import load_adapter
from ..sockets import CATEGORY, AdapterType, Form, say, verdict


class LoadAdapter(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoadAdapter",
            display_name="Load IP-Adapter",
            category=CATEGORY,
            description="Loads an IP-Adapter from any file; what it is, is told by its content, whatever its name. "
            "Published adapters for faces (FaceID) are for research only, not for commercial use.",
            search_aliases=[
                "ipadapter",
                "ip-adapter",
                "IPAdapter Model Loader",
                "IPAdapter Unified Loader",
                "reference",
            ],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folders.adapter_files(),
                    tooltip="A file in models/ipadapter (or an extra path of that kind). Its name does not matter.",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default=AUTO,
                    optional=True,
                    advanced=True,
                    tooltip="What a file cannot tell. 'auto' (neutral): as its metadata say, else FaceID plus is v2. "
                    "Choose 'FaceID plus v1' for the first FaceID plus of SD1.5.",
                ),
            ],
            outputs=[AdapterType.Output(display_name="adapter")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, variant: str = AUTO) -> Any:
        return folders.fingerprint(folders.path_of(folders.ADAPTERS, file))

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return verdict(lambda: None if file is None else adapter_facts(folders.path_of(folders.ADAPTERS, file)))

    @classmethod
    def execute(cls, file: str, variant: str = AUTO) -> io.NodeOutput:
        adapter = load_adapter(folders.path_of(folders.ADAPTERS, file), variant)
        say(headline(adapter.spec, adapter.metadata), describe(adapter.spec, adapter.metadata))
        return io.NodeOutput(adapter)
