"""Takes the picture of a report in the README: python docs/draw_report.py REPORT.html

The report is that of `make demo`: mmctr report runs/quickstart --out REPORT.html. Needs playwright and Chromium.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FIRST, HEIGHT = "ROC, calibration and scores: test", 1100  # from this heading on, pixels


def main() -> None:
    """Writes docs/report.png, the part of the page below FIRST at a width of 1,280 pixels, in few colours."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        top = page.locator("h2", has_text=FIRST).first.bounding_box()["y"] - 12
        body = page.locator("h2").first.bounding_box()
        clip = {"x": body["x"] - 20, "y": top, "width": body["width"] + 40, "height": HEIGHT}
        picture = page.screenshot(full_page=True, clip=clip)
        browser.close()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(64).save(
        Path(__file__).with_name("report.png"), optimize=True
    )


if __name__ == "__main__":
    main()
