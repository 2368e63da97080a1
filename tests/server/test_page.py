"""ComfyUI's page with this pack: every workflow opens without a complaint, and is offered as a template."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from tools import api_graphs as prompts
from tools.cards import LARGEST, SIDE
from tools.graphs.cards import CARDS
from tools.graphs.graph import ENCODER
from tools.page import Page
from tools.server import PACK, Server

pytestmark = pytest.mark.comfy


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


def test_a_missing_encoder_is_offered_under_the_name_that_is_asked_for(page: Page):
    """Although auto names none."""
    workflow = json.loads(json.dumps(prompts.workflow("image_prompt")).replace(ENCODER, "not_there.safetensors"))
    page.open(workflow)
    page.tab.get_by_text("View details").first.click()
    row = page.tab.get_by_text("not_there.safetensors", exact=True).first
    row.wait_for(timeout=10_000)
    assert page.tab.get_by_role("button", name="Download").count()
    page.open({"nodes": [], "links": [], "version": 0.4})


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
    assert sorted(server.get("/workflow_templates")[PACK]) == [card.title for card in CARDS.values()]


@pytest.mark.parametrize("name", prompts.NAMES)
def test_a_template_has_its_picture(name: str, page: Page, server: Server):
    file = quote(f"{CARDS[name].title}.jpg")
    answer = page.tab.request.get(f"{server.address}/api/workflow_templates/{PACK}/{file}")
    assert answer.ok
    assert answer.headers["content-type"] == "image/jpeg"
    assert 5_000 < len(answer.body()) <= LARGEST
    with Image.open(io.BytesIO(answer.body())) as picture:
        assert picture.size == (SIDE, SIDE)


def test_a_template_is_found_and_opens_from_the_browser(page: Page):
    """As a user does it: search, click the first card."""
    title = CARDS["pocket_image_prompt"].title
    page.open({"nodes": [], "links": [], "version": 0.4})
    page.tab.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.tab.get_by_text(PACK, exact=True).click()
    page.tab.get_by_placeholder("Search").last.fill("ipadapter")
    page.tab.get_by_test_id(f"template-workflow-{title}").click()
    page.tab.wait_for_function("app.graph.nodes.some(node => node.type === 'ImagePrompt')", timeout=30_000)
    assert len(page.graph()["nodes"]) == len(prompts.workflow("pocket_image_prompt")["nodes"])
