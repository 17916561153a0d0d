"""HTML pages as a careful reader sees them: `Page` reads one, and refuses what a report never has."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "rect", "path"}
# Of those that load, run or send something.
_FORBIDDEN = {
    "script",
    "iframe",
    "object",
    "embed",
    "link",
    "base",
    "form",
    "input",
    "button",
    "use",
    "image",
    "foreignobject",
}


class Page(HTMLParser):
    """The words of a page, its ids, links and pictures. `faults` say what a report never has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.labels: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.faults += [f"id {name} twice" for name in {one for one in self.ids if self.ids.count(one) > 1}]
        self.faults += [
            f"link to {link} leads nowhere" for link in self.links if link.removeprefix("#") not in self.ids
        ]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in _FORBIDDEN:
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "src", "srcset", "href", "xlink:href", "action"):
                local = (value or "").startswith("#" if name == "href" else "data:image/png;base64,")
                if name not in ("src", "href") or not local:
                    self.faults.append(f"<{tag} {name}={value!r}>")
        if values.get("id"):
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values.get("href") or "")
        if tag == "img":
            self.images.append(values)
            if not values.get("alt"):
                self.faults.append("a picture without alt")
        if tag == "th" and not values.get("scope"):
            self.faults.append("a th without scope")
        if tag == "svg" and not (
            values.get("aria-label") or values.get("aria-labelledby") or values.get("aria-hidden")
        ):
            self.faults.append("a drawing without a label")
        self.labels.append(values.get("aria-label") or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style",):
            self.words.append(data)
