"""The processor time of each peer as a picture: a bar for its server, one for its clients."""

from collections.abc import Mapping
from html import escape

WIDTH, ROW, LEFT, TOP = 720, 44, 190, 56
SERVER, CLIENTS, TEXT = "#4051b5", "#9fa8da", "#777"


def plot(medians: Mapping[str, tuple[float, float]]) -> str:
    """Return an SVG picture of the ms for each lifecycle: of server and database, of clients."""
    scale = (WIDTH - LEFT - 120) / max(sum(pair) for pair in medians.values())
    height = TOP + ROW * len(medians)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        f'  font-family="sans-serif" font-size="14" fill="{TEXT}">',
        '<text x="0" y="18" font-weight="bold">CPU for each lifecycle, ms</text>',
        rectangle(LEFT, 30, 12, 12, SERVER),
        f'<text x="{LEFT + 18}" y="41">server and database</text>',
        rectangle(LEFT + 170, 30, 12, 12, CLIENTS),
        f'<text x="{LEFT + 188}" y="41">clients</text>',
    ]
    for row, (name, (server, clients)) in enumerate(medians.items()):
        y = TOP + ROW * row
        end = LEFT + (server + clients) * scale
        total = round(server, 2) + round(clients, 2)  # of what the table shows
        parts += [
            f'<text x="0" y="{y + 20}">{escape(name)}</text>',
            rectangle(LEFT, y + 4, server * scale, 24, SERVER),
            rectangle(LEFT + server * scale, y + 4, clients * scale, 24, CLIENTS),
            f'<text x="{end + 8:.1f}" y="{y + 20}">{total:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


def rectangle(x: float, y: float, width: float, height: float, color: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{color}"/>'
