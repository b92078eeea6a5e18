#!/usr/bin/python3
"""Opens a report in headless Chromium: norms_browser.py REPORT.html SECONDS.

It must draw within SECONDS, put no error on the console, ask the network for nothing, and change layers on a click in the
heat map and on a layer's button.
"""
import json
import pathlib
import sys
import tempfile
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By


def open_browser(profile):
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1300,1600",
                 "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


def requested(browser, path):
    """What the report asked for; the browser's own pages (its new tab, on a slow machine) ask for things too."""
    urls = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent" and message["params"]["documentURL"] == path.as_uri():
            urls.append(message["params"]["request"]["url"])
    assert path.as_uri() in urls, "the browser's log of requests does not even hold the report"
    return [url for url in urls if not url.startswith("data:") and url != path.as_uri()]


def main():
    path, limit = pathlib.Path(sys.argv[1]).resolve(), float(sys.argv[2])
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            browser.get("about:blank")
            begin = time.monotonic()
            browser.get(path.as_uri())
            seconds = time.monotonic() - begin
            assert browser.find_element(By.TAG_NAME, "body").get_attribute("data-ready") == "yes", "the script did not end"
            charts = len(browser.find_elements(By.CSS_SELECTOR, ".plot canvas"))
            assert charts >= 8, f"only {charts} canvases"
            dark = browser.execute_script(
                "const c = document.querySelector('#heat canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (d.length / 4);")
            assert dark > 0.5, f"the heat map covers only {dark:.2f} of its canvas"
            chosen = lambda: browser.find_element(By.ID, "chosen-layer").text
            heat, first = browser.find_element(By.ID, "heat"), chosen()
            layers = len(browser.find_elements(By.CSS_SELECTOR, "#layers button"))
            row = int(first) if first.isdigit() else 0
            other = 0 if row else 1
            height = heat.size["height"] - 30
            offset = round(height * (other + 0.5) / layers - heat.size["height"] / 2)
            ActionChains(browser).move_to_element_with_offset(heat, 0, offset).click().perform()
            assert chosen() == str(other), f"a click on layer {other} of the heat map chose {chosen()}, was {first}"
            browser.find_element(By.CSS_SELECTOR, f"#layers button[data-layer='{layers - 1}']").click()
            assert chosen() == str(layers - 1), "a click on a layer's button chose nothing"
            browser.find_element(By.ID, "log").click()
            errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
            assert not errors, errors
            asked = requested(browser, path)
            assert not asked, f"the page asked the network for {asked}"
            assert seconds <= limit, f"opened in {seconds:.2f} s"
            print(f"opened in {seconds:.2f} s, {charts} canvases, first layer {first}")
            if len(sys.argv) > 3:
                browser.save_screenshot(sys.argv[3])
        finally:
            browser.quit()


main()
