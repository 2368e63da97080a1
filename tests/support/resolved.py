"""Whether a prompt's nodes and inputs are what a server has, by its /object_info."""

from __future__ import annotations

from typing import Any


def check(content: dict[str, Any], object_info: dict[str, Any]) -> None:
    """Every node exists, has its required inputs and no unknown ones; links fit their sockets, values are choices."""
    for node in content.values():
        described = object_info[node["class_type"]]
        required, optional = (described["input"].get(kind, {}) for kind in ("required", "optional"))
        named = {key.partition(".")[0] for key in node["inputs"]}
        assert set(required) <= named <= set(required) | set(optional), node["class_type"]
        for key, value in node["inputs"].items():
            kind, *settings = described_input(required | optional, key)
            if isinstance(value, list):
                source = object_info[content[value[0]]["class_type"]]
                assert source["output"][value[1]] == kind, f"{node['class_type']}.{key}"
            elif isinstance(kind, list) or kind == "COMBO":
                assert value in (kind if isinstance(kind, list) else settings[0]["options"])


def described_input(inputs: dict[str, Any], key: str) -> list[Any]:
    """Kind and settings of an input; one of a growing group ("regions.region_0") is as the group's template says."""
    group, dot, _ = key.partition(".")
    kind, *settings = inputs[group]
    if not dot:
        return [kind, *settings]
    assert kind == "COMFY_AUTOGROW_V3", f"{key}: {kind}"
    (template,) = (one for part in settings[0]["template"]["input"].values() for one in part.values())
    return template
