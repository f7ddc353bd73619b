#!/usr/bin/env python3
"""Writes the page on what servers do with slow clients from the probe's results.

Every figure on the page comes from a result file: the template holds the prose,
and names what is to be put in as {{table:slow}}, {{table:steady}}, {{plots}},
{{commands}}, {{date}}, {{kernel}}, {{load}}, {{missing}} or {{cell:SCENARIO:COLUMN}}.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

MIB = 1024 * 1024
KIND_TITLES = {
    "stalled": "stalled",
    "quiet": "stalled, its input all read",
    "talker": "talker",
    "trickle": "trickle, 1 KiB/s",
    "paused": "paused for 4 s",
    "steady": "steady, 64 KiB/s",
}
TO_GO = ("stalled", "quiet", "talker", "trickle")
# The plots on the page; the others would say the same again.
PLOTS = ("redis", "nginx_file", "haproxy", "node", "unbounded_echo", "blocking_echo", "timeout_echo", "highwater",
         "nginx_file_3s", "haproxy_3s")


class Result:
    """One scenario: what was run, and what the probe measured."""

    def __init__(self, name, directory):
        self.name = name
        lines = (directory / f"{name}.tsv").read_text().splitlines()
        self.about = dict(line.split("\t", 1) for line in lines)
        self.probe = json.loads((directory / f"{name}.json").read_text())
        self.plot = directory / f"{name}.svg"

    def clients(self, kind):
        return [client for client in self.probe["slow"] if client["kind"] == kind]

    def cell(self, column):
        """The text of one cell; every figure in it is measured."""
        if column in KIND_TITLES:
            return self.fate(column)
        return {
            "server": lambda: f"{self.about['title']}<br>{self.about['version']}",
            "healthy": self.healthy,
            "memory": self.memory,
            "kernel": self.kernel,
            "verdict": self.verdict,
            "given": self.given,
        }[column]()

    def fate(self, kind):
        clients = self.clients(kind)
        if not clients:
            return "–"
        said = []
        full = [client for client in clients if kind != "quiet" or client["full_at"] is not None]
        for end in sorted({client["end"] or "" for client in full}):
            alike = [client for client in full if (client["end"] or "") == end]
            what = END_WORDS.get(end, end) + after(alike) if end else "kept" + self.how_long(kind)
            said.append(f"{len(alike)} of {len(clients)} {what}{losses(kind, alike)}")
        if len(full) < len(clients):
            said.append(f"{len(clients) - len(full)} of {len(clients)} not full{self.how_long(kind)}")
        return "; ".join(said)

    def how_long(self, kind):
        if kind not in TO_GO:
            return ""
        return f" in the {min(self.probe['seconds'] - client['joined_at'] for client in self.clients(kind)):.0f} s watched"

    def healthy(self):
        before, during = self.probe["healthy"]["before"], self.probe["healthy"]["during"]
        if not before or not during:
            return "–"
        if during["messages"] == 0 and not self.verifies():
            return "nothing was due to them"
        if during["messages"] == 0:
            return "**nothing for anybody**"
        return (f"{during['messages_per_second'] / max(before['messages_per_second'], 1e-9) * 100:.0f} % of their rate, "
                f"longest wait {milliseconds(before['max_us'])} → {milliseconds(during['max_us'])}")

    def verifies(self):
        return self.probe["protocol"] != "push"

    def memory(self):
        server = self.probe["server"]
        if not server:
            return "–"
        # What a flood does to the memory is seen at once, so "before" is what it was first of all.
        seen = [slice["rss_bytes"] for slice in self.probe["timeline"] if slice["rss_bytes"]]
        return f"{mib(seen[0])} → {mib(max(*seen, server['rss_peak_bytes']))} MiB" if seen else "–"

    def kernel(self):
        server = self.probe["server"]
        if not server:
            return "–"
        if server["orphans"] == 0:
            return "nothing"
        each = mib(server["orphan_bytes"] / server["orphans"])
        return f"{each} MiB for each of {server['orphans']}" if server["orphans"] > 1 else f"{each} MiB for one"

    def given(self):
        """What clients that were ended had received, as a rate until their end."""
        rates = [client["received_bytes"] / (client["ended_at"] - client["joined_at"]) / 1024
                 for client in self.clients("steady") if client["ended_at"]]
        return f"{min(rates):.0f} KiB/s" if rates else "–"

    def verdict(self):
        failed = [finding["title"] for finding in self.probe["findings"] if finding["verdict"] == "fail"]
        return f"**{self.probe['verdict']}**" + "".join(f"<br>not: {title}" for title in failed)


END_WORDS = {
    "reset": "reset",
    "end_of_file": "closed with an end of file",
    "left_in_kernel": "closed without a reset",
    "not_connected": "not even connected",
}


def after(clients):
    """From full to the end; where nobody can tell when a client was full, from its beginning."""
    times = [client["seconds_to_end"] for client in clients if client["seconds_to_end"] is not None]
    since = ""
    if not times:
        times = [client["ended_at"] - client["joined_at"] for client in clients]
        since = " from its start"
    low, high = f"{min(times):.1f}", f"{max(times):.1f}"
    return (f" after {low} s" if low == high else f" after {low} to {high} s") + since


def losses(kind, clients):
    """What clients that should be kept have lost, if anything."""
    if kind in TO_GO:
        return ""
    if any(client["intact"] is False for client in clients):
        lost = any("were lost" in (client["corruption"] or "") for client in clients)
        return ", **messages lost**" if lost else ", **bytes wrong**"
    if all(client["intact"] is None for client in clients):
        return ", unverified"
    if all(client["complete"] for client in clients):
        return ", nothing lost"
    return ", **not served to the end**"


def mib(amount):
    amount /= MIB
    return f"{amount:.0f}" if amount >= 10 else f"{amount:.1f}" if amount >= 0.1 else f"{amount:.2f}"


def milliseconds(microseconds):
    amount = microseconds / 1000
    return f"{amount:.0f} ms" if amount >= 10 else f"{amount:.1f} ms"


TABLES = {
    "slow": [("server", "server")] + [(kind, KIND_TITLES[kind]) for kind in KIND_TITLES]
    + [("healthy", "healthy clients meanwhile"), ("memory", "memory"), ("kernel", "left in the kernel"),
       ("verdict", "verdict")],
    "steady": [("server", "server"), ("steady", "steady, 128 KiB/s"), ("given", "what it read until its end"),
               ("kernel", "left in the kernel")],
}


def table(results, which):
    columns = TABLES[which]
    rows = [[title for _, title in columns], ["---"] * len(columns)]
    rows += [[result.cell(column) for column, _ in columns] for result in results if result.about["table"] == which]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def commands(results):
    lines = []
    for result in results:
        lines += [f"{result.about['title']} ({result.about['version']}):", "", "```", result.about["server"],
                  result.about["probe"], "```", ""]
    return "\n".join(lines).rstrip()


def plots(results, directory):
    for old in directory.glob("*.svg"):
        old.unlink()
    lines = []
    for result in results:
        if result.name in PLOTS and result.plot.exists():
            shutil.copy(result.plot, directory / result.plot.name)
            lines += [f"### {result.about['title']}", "", f"![Timeline]({directory.name}/{result.plot.name})", ""]
    return "\n".join(lines).rstrip()


def load(results):
    """What else the machine did, which decides how much the healthy clients' rates say."""
    loads = [float(result.about["load"]) for result in results]
    return (f"{results[0].about['processors']} processors, shared by server, prober and whatever else ran: load average "
            f"{min(loads):.1f} to {max(loads):.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--results", "--template", "--plots", "--page"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("names", nargs="+", help="the scenarios, in the order of the page")
    options = parser.parse_args()

    there = [name for name in options.names if (options.results / f"{name}.json").exists()]
    missing = [name for name in options.names if name not in there]
    results = [Result(name, options.results) for name in there]
    if not results:
        sys.exit("report: there are no results to write about")
    by_name = {result.name: result for result in results}

    def put_in(match):
        what, *arguments = match.group(1).split(":")
        if what == "table":
            return table(results, arguments[0])
        if what == "cell":
            name, column = arguments
            return by_name[name].cell(column) if name in by_name else "(not probed)"
        return {
            "plots": lambda: plots(results, options.plots),
            "commands": lambda: commands(results),
            "date": lambda: " and ".join(sorted({result.about["date"] for result in results})),
            "kernel": lambda: " and ".join(sorted({result.about["kernel"] for result in results})),
            "load": lambda: load(results),
            "missing": lambda: f"Not probed here: {', '.join(missing)}." if missing else "",
        }[what]()

    page = re.sub(r"\{\{([^{}]+)\}\}", put_in, options.template.read_text())
    options.page.write_text(re.sub(r"\n{3,}", "\n\n", page))
    print(f"report: {len(results)} results on {options.page}", file=sys.stderr)


if __name__ == "__main__":
    main()
