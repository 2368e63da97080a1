"""A ComfyUI of our own with this pack: started on a free loopback port, spoken to as its page does, and ended.

It has its own folders for input, output and settings, so a ComfyUI that belongs to someone stays as it is.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import torch

from tools.comfyui import ROOT

# On a CPU: the UNet's weights kept in fp16 (half the memory, computed in fp32), and torch's own attention.
CPU = ("--cpu", "--fp16-unet", "--use-pytorch-cross-attention")
Answer = TypeVar("Answer")
PACK = "image-prompt-adapter"  # our folder's name in custom_nodes/
START_SECONDS = 180
Progress = Callable[[str, dict[str, Any]], None]


class ServerError(RuntimeError):
    """ComfyUI did not start, refused a prompt, or a node failed."""


@dataclass(frozen=True)
class Result:
    """A prompt that ran: its entry of /history, the pictures it saved, and how long it took."""

    history: dict[str, Any]
    pictures: list[Path]
    seconds: float


class Server:
    """A running ComfyUI; use it in a `with`.

    comfyui: its folder. folder: where it may write. models: laid out as ComfyUI's own models/. others: folders of other
    packs to run beside ours. pack: the folder of ours, this checkout or another one.
    Raises ServerError when it does not start; the reason is the end of its log.
    """

    def __init__(
        self, comfyui: Path, folder: Path, models: Path, others: Iterable[Path] = (), pack: Path = ROOT
    ) -> None:
        self.comfyui = comfyui
        self.folder = folder.resolve()
        self.models = models.resolve()
        self.packs = {PACK: pack} | {path.name: path for path in others}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "comfyui.log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Server:
        for name in ("custom_nodes", "input", "output", "user", "temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for link in (self.folder / "custom_nodes").iterdir():
            if link.is_symlink():
                link.unlink()
        for name, path in self.packs.items():
            (self.folder / "custom_nodes" / name).symlink_to(path, target_is_directory=True)
        shutil.copy(self.comfyui / "input" / "example.png", self.folder / "input")
        self.port = free_port()
        device = () if torch.accelerator.is_available() else CPU
        command = [
            sys.executable, "main.py", "--listen", "127.0.0.1", "--port", str(self.port), *device,
            "--base-directory", str(self.folder), "--models-directory", str(self.models),
            "--database-url", f"sqlite:///{self.folder / 'user' / 'comfyui.db'}", "--disable-api-nodes",
        ]  # fmt: skip
        with (self.folder / "comfyui.log").open("wb") as log:
            # In ComfyUI's folder: our nodes/ must not stand for ComfyUI's nodes.py.
            self.process = subprocess.Popen(command, cwd=self.comfyui, stdout=log, stderr=subprocess.STDOUT)
        try:
            _finish(self._started())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    async def _started(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession(self.address) as session:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise ServerError(f"ComfyUI ended while it started:\n{self.log[-3000:]}")
                try:
                    async with session.get("/system_stats"):
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer in {START_SECONDS} s:\n{self.log[-3000:]}")

    def get(self, route: str) -> Any:
        """The JSON that a route answers, e.g. /object_info."""

        async def ask() -> Any:
            async with aiohttp.ClientSession(self.address) as session, session.get(route) as answer:
                answer.raise_for_status()
                return await answer.json()

        return _finish(ask())

    def free(self) -> None:
        """Make ComfyUI unload all models and forget what it has computed."""

        async def ask() -> None:
            async with (
                aiohttp.ClientSession(self.address) as session,
                session.post("/free", json={"unload_models": True, "free_memory": True}) as answer,
            ):
                answer.raise_for_status()

        _finish(ask())

    def run(
        self, prompt: dict[str, Any], workflow: dict[str, Any] | None = None, progress: Progress | None = None
    ) -> Result:
        """Run a prompt (API form) to its end. `workflow`, its page form, is what saved pictures carry.

        `progress` gets each message of /ws, its type and data. Raises ServerError that names the node and the reason.
        """
        return _finish(self._run(prompt, workflow, progress or (lambda kind, data: None)))

    async def _run(self, prompt: dict[str, Any], workflow: dict[str, Any] | None, progress: Progress) -> Result:
        client = uuid.uuid4().hex
        request: dict[str, Any] = {"prompt": prompt, "client_id": client}
        if workflow is not None:
            request["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        start = time.monotonic()
        async with (
            aiohttp.ClientSession(self.address) as session,
            session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as messages,
        ):
            async with session.post("/prompt", json=request) as answer:
                reply = await answer.json()
            if answer.status != 200:
                raise ServerError(_refusal(reply))
            await self._follow(messages, reply["prompt_id"], progress)
            async with session.get(f"/history/{reply['prompt_id']}") as answer:
                history = (await answer.json())[reply["prompt_id"]]
        shown = [picture for output in history["outputs"].values() for picture in output.get("images", ())]
        saved = [picture for picture in shown if picture["type"] == "output"]  # not those that nodes only show
        pictures = [self.folder / picture["type"] / picture["subfolder"] / picture["filename"] for picture in saved]
        return Result(history, pictures, time.monotonic() - start)

    async def _follow(self, messages: aiohttp.ClientWebSocketResponse, prompt_id: str, progress: Progress) -> None:
        async for message in messages:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # previews
            content = message.json()
            kind, data = content["type"], content["data"]
            progress(kind, data)
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "execution_error":
                raise ServerError(f"{data['node_type']} (node {data['node_id']}): {data['exception_message'].strip()}")
            if kind == "execution_interrupted":
                raise ServerError("the prompt was interrupted")
            if kind == "executing" and data["node"] is None:
                return  # only now it is in the history
        raise ServerError(f"ComfyUI ended while it ran:\n{self.log[-3000:]}")


def _finish(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine to its end, in a thread of its own: the caller's may have a running event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _refusal(reply: dict[str, Any]) -> str:
    """Why /prompt refused, in one line: the nodes' own errors, or the general one."""
    reasons = [
        f"{node['class_type']} (node {number}): {error['message']}: {error['details']}"
        for number, node in (reply.get("node_errors") or {}).items()
        for error in node["errors"]
    ]
    general = reply["error"]
    return "; ".join(reasons) or f"{general['message']}: {general['details']}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
