"""Save and Load Image Prompt: what an adapter reads of a picture, in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from .. import folders
from ..models import Adapter
from ..prompts.saved import load_prompt, save_prompt
from ..sockets import CATEGORY, AdapterType, Form, PromptType, say, verdict

NOTHING = "none saved yet"  # in place of an empty list, which the page shows as "undefined"


def saved_path(name: str) -> Path:
    """The file of a choice. Raises ValueError that says how to come by one when there is none."""
    if name == NOTHING:
        raise ValueError(
            "no image prompt is saved yet: make one with Save Image Prompt, or put its .safetensors file into "
            "models/image_prompts"
        )
    return folders.path_of(folders.PROMPTS, name)


class SaveImagePrompt(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptSave",
            display_name="Save Image Prompt",
            category=CATEGORY,
            description="Saves what an adapter reads of a picture, to use it later without picture and encoder.",
            search_aliases=["IPAdapter Save Embeds", "export image prompt"],
            inputs=[
                PromptType.Input("image_prompt", tooltip="From Encode Image Prompt, Encode Faces or Combine."),
                AdapterType.Input(
                    "adapter", tooltip="The adapter that will read it: what it needs is saved. Others of its family "
                    "and encoder read it as well.",
                ),
                io.String.Input(
                    "name", default="image_prompt",
                    tooltip="Of the file in models/image_prompts; a number is added, so that none is written over.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, image_prompt: Any, adapter: Adapter, name: str) -> io.NodeOutput:
        return io.NodeOutput(ui={"text": (save_prompt(image_prompt, adapter, name).name,)})


class LoadImagePrompt(Form):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImagePromptLoad",
            display_name="Load Image Prompt",
            category=CATEGORY,
            description="Loads an image prompt that was saved, or identities of faces that another program saved.",
            search_aliases=["IPAdapter Load Embeds", "import image prompt"],
            inputs=[
                io.Combo.Input(
                    "file", options=folders.prompt_files() or [NOTHING],
                    tooltip="A file in models/image_prompts (or an extra path of that kind). Save Image Prompt puts "
                    "them there.",
                )
            ],
            outputs=[PromptType.Output(display_name="image prompt")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return folders.fingerprint(folders.path_of(folders.PROMPTS, file))

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return verdict(lambda: None if file is None else saved_path(file))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        prompt = load_prompt(saved_path(file))
        say(prompt.words)
        return io.NodeOutput(prompt)
