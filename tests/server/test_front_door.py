"""A newcomer in the page: finds the nodes, adds them with their defaults, and reads on them what is the matter."""

from __future__ import annotations

from typing import Any

import pytest

from tools.page import Page
from tools.server import Server

pytestmark = pytest.mark.comfy

# Freshly added nodes, connected: pocket, a picture, Image Prompt, and an output node behind it.
ADD = """() => {
    app.graph.clear();
    const add = type => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; };
    const types = ['ImagePromptLoadPocket', 'EmptyImage', 'ImagePrompt', 'PreviewAny'];
    const [pocket, picture, prompt, end] = types.map(add);
    const at = (node, name) => node.inputs.findIndex(input => input.name === name);
    pocket.connect(0, prompt, at(prompt, 'model'));
    picture.connect(0, prompt, at(prompt, 'image'));
    prompt.connect(0, end, 0);
}"""
NODE = "app.graph.nodes.find(node => node.type === 'ImagePrompt')"
SET = f"([name, value]) => {{ {NODE}.widgets.find(widget => widget.name === name).value = value; }}"
# Ends with the run: "" or what failed; refused before it: each node's errors.
RUN = """() => new Promise(async resolve => {
    app.api.addEventListener('execution_success', () => resolve(''), {once: true});
    app.api.addEventListener('execution_error', event => resolve(event.detail.exception_message), {once: true});
    if (!await app.queuePrompt(0)) resolve(JSON.stringify(app.lastNodeErrors ?? {}));
})"""
TEXT = f"() => {NODE}.widgets.find(widget => widget.name === '$$node-text-preview')?.value ?? ''"
FOUND = """words => document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s.get('nodeDef')
    .nodeSearchService.searchNode(words, [], {limit: 64}).filter(node => !node.deprecated).map(node => node.name)"""


@pytest.fixture(scope="module")
def fresh(page: Page) -> Page:
    page.tab.evaluate(ADD)
    return page


def choose(page: Page, **widgets: str) -> None:
    for name, value in widgets.items():
        page.tab.evaluate(SET, [name, value])


def text(page: Page, beginning: str) -> str:
    """What Image Prompt shows, once it begins like this."""
    page.tab.wait_for_function(f"words => ({TEXT})().startsWith(words)", arg=beginning, timeout=20_000)
    return page.tab.evaluate(TEXT)


def test_other_nodes_do_not_offer_pockets_files(server: Server) -> None:
    def options(node: str, name: str) -> list[str]:
        kind, *rest = server.get(f"/object_info/{node}")[node]["input"]["required"][name]
        return rest[0]["options"] if kind == "COMBO" else kind

    for node, name in (("CLIPVisionLoader", "clip_name"), ("LoraLoader", "lora_name")):
        assert not [one for one in options(node, name) if "pocket" in one]
    assert options("ImagePromptLoadAdapter", "file")[-2:] == ["pocket.safetensors", "pocket_plus.safetensors"]
    assert options("ImagePromptLoadEncoder", "weights")[-1] == "pocket/"
    assert options("ImagePromptLoad", "file") != []


def test_the_sentence_is_on_the_node_and_goes_when_it_runs(fresh: Page) -> None:
    """The first adapter in the list is not pocket's; pocket's is; one that is gone is refused before the run."""
    answer = fresh.tab.evaluate(RUN)
    said = text(fresh, "⚠ ")
    print(f"\n{said}")
    assert said == f"⚠ {answer.strip()}" and "load an adapter for" in said and "(pocket.safetensors" in said
    choose(fresh, adapter="pocket.safetensors")
    assert fresh.tab.evaluate(RUN) == ""
    said = text(fresh, "64-wide text")
    assert said.splitlines()[1] == "CLIP 128 wide, 64 px · pocket/ (the one that fits)"
    fresh.tab.wait_for_function(f"() => {NODE}.imgs?.length === 1", timeout=20_000)  # what the encoder sees


def test_a_missing_file_is_refused_before_anything_runs(fresh: Page) -> None:
    choose(fresh, adapter="gone.safetensors")
    assert "'gone.safetensors' was not found" in fresh.tab.evaluate(RUN)
    choose(fresh, adapter="pocket.safetensors", encoder="open_clip: ViT-H-14/laion2b_s32b_b79k")
    assert "does not fit pocket.safetensors" in fresh.tab.evaluate(RUN)
    choose(fresh, encoder="auto")


# Words, and the place by which one of ours is found: after those alone that have the word in their names. The first
# for "ip-adapter" are our three blueprints.
PLACES = {
    "ipadapter": 1, "ip-adapter": 4, "IPAdapter Advanced": 1, "image prompt": 1, "reference": 8, "style": 8,
    "composition": 8, "character": 8, "face": 10, "faceid": 1,
}  # fmt: skip


def test_words_find_our_nodes(page: Page) -> None:
    places: dict[str, Any] = {}
    for words in PLACES:
        names = page.tab.evaluate(FOUND, words)
        places[words] = next((place for place, name in enumerate(names, 1) if name.startswith("ImagePrompt")), None)
        print(f"\n{words}: {places[words]} of {len(names)}: {', '.join(names[:8])}")
    assert {words: place for words, place in places.items() if place is None or place > PLACES[words]} == {}
