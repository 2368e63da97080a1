"""ComfyUI's page with this pack: every workflow opens without a complaint, and is offered as a template."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tools import api_graphs as prompts
from tools.page import Page
from tools.server import PACK, Server

pytestmark = pytest.mark.comfy
LARGEST = 150_000  # bytes of a template's picture


def test_the_page_starts_without_an_error_from_this_pack(page: Page):
    assert [error for error in page.errors if PACK in error or "ImagePrompt" in error] == []


@pytest.mark.parametrize("name", prompts.NAMES)
def test_opens_without_missing_nodes_or_errors(name: str, page: Page):
    workflow = prompts.workflow(name)
    before = len(page.errors)
    page.open(workflow)
    page.tab.wait_for_timeout(300)  # errors of drawing come a little later
    assert page.missing() == []
    assert page.errors[before:] == []
    assert len(page.graph()["nodes"]) == len(workflow["nodes"])


def test_an_unknown_node_is_seen_as_missing(page: Page):
    workflow = prompts.workflow("image_prompt")
    for node in workflow["nodes"]:
        if node["type"] == "ImagePrompt":
            node["type"] = "ImagePromptOfAnotherPack"
    page.open(workflow)
    assert page.missing() == ["ImagePromptOfAnotherPack"]


@pytest.mark.parametrize("name", prompts.NAMES)
def test_no_nodes_overlap(name: str):
    def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
        (x, y), (width, height) = one["pos"], one["size"]
        (u, v), (wide, tall) = other["pos"], other["size"]
        title = 30  # above each node's position
        return x < u + wide and u < x + width and y - title < v + tall and v - title < y + height

    nodes = prompts.workflow(name)["nodes"]
    assert [(one["id"], other["id"]) for one, other in itertools.combinations(nodes, 2) if overlap(one, other)] == []


def test_the_template_browser_offers_the_workflows_alone(server: Server):
    assert sorted(server.get("/workflow_templates")[PACK]) == prompts.NAMES


@pytest.mark.parametrize("name", prompts.NAMES)
def test_a_template_has_its_picture(name: str, page: Page, server: Server):
    answer = page.tab.request.get(f"{server.address}/api/workflow_templates/{PACK}/{name}.jpg")
    assert answer.ok
    assert answer.headers["content-type"] == "image/jpeg"
    assert 10_000 < len(answer.body()) <= LARGEST


def test_a_template_opens_from_the_browser(page: Page, server: Server):
    with page.tab.context.expect_page() as opened:
        page.tab.evaluate("address => window.open(address)", f"{server.address}/?template=image_prompt&source={PACK}")
    tab = opened.value
    tab.wait_for_function("() => window.app?.graph?.nodes.some(node => node.type === 'ImagePrompt')", timeout=60_000)
    tab.close()
