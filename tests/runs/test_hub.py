"""Agents on the hub, against a server of this machine that plays the hub's part."""

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import yaml

import a3cjax
from a3cjax.commands import main
from a3cjax.commands.evaluate import EvaluateSettings, default_path
from a3cjax.config.reading import load_config
from a3cjax.errors import ConfigError
from a3cjax.runs.hub import CARD, PUBLISHED, download, upload
from a3cjax.runs.loading import find_agent
from a3cjax.runs.lock import LOCK, claimed, is_own
from a3cjax.runs.publishing import make_model_card
from a3cjax.runs.tables import read_summary
from tests.cases import for_each

NAME = "hf://me/pong"
PONG = find_agent("pong")


class Hub:
    """What huggingface_hub asks a hub of models for, of repositories without branches.

    `commits` are the files of each revision by repository; `main` is the newest.
    """

    def __init__(self):
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []

    def add(self, repository: str, files: dict[str, bytes]) -> str:
        commits = self.commits.setdefault(repository, {})
        revision = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits[revision] = files
        return revision

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(f"{method} {path}")
        if path == "/api/validate-yaml":
            return _json({"warnings": [], "errors": []})
        if path == "/api/repos/create":
            repository = "{organization}/{name}".format(**json.loads(body))
            self.commits.setdefault(repository, {})
            return _json({"url": f"https://huggingface.co/{repository}", "id": repository})
        match = re.match(r"(?:/api/models)?/(\w+/\w+)/(\w+)/(\w+)/?([\w.]*)", path)
        assert match is not None, path
        repository, what, revision, name = match.groups()
        commits = self.commits.get(repository)
        if commits is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if what == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return _json({"files": modes})
        if what == "commit":
            lines = [json.loads(line)["value"] for line in body.splitlines()]
            files = {v["path"]: base64.b64decode(v["content"]) for v in lines if "path" in v}
            sha = self.add(repository, files)
            return _json(
                {
                    "success": True,
                    "commitUrl": f"https://huggingface.co/{repository}/commit/{sha}",
                    "commitOid": sha,
                }
            )
        revision = list(commits)[-1] if revision == "main" else revision
        if revision not in commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = commits[revision]
        if what == "revision":
            return _json({"id": repository, "sha": revision, "siblings": []})
        if what == "tree":
            return _json([_describe(name, content) for name, content in files.items()])
        assert what == "resolve"
        oid = _describe(name, files[name])["oid"]
        return 200, {"ETag": f'"{oid}"', "X-Repo-Commit": revision}, files[name]


def _json(content):
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _describe(name, content):
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with nothing on it, for which the user has a token."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = hub.answer(self.command, self.path.split("?")[0], body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # its thread outlives the test
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def use_endpoint(monkeypatch, address):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_agent_comes_back_from_the_hub_as_it_went_there(hub, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in contents(PONG).items():
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("mine alone")
    assert upload(folder, "me/pong").endswith("/me/pong")
    ((files,),) = [list(commits.values()) for commits in hub.commits.values()]
    assert files == contents(PONG)
    assert files.keys() <= set(PUBLISHED)
    agent, own = a3cjax.load(NAME), a3cjax.load("pong")
    assert repr(agent) == repr(own)
    observation = own.spec.observation_space.sample()
    assert agent.predict(observation)[0] == own.predict(observation)[0]


def test_verb_publishes_to_the_hub_with_a_card_that_says_how_to_load(hub, tmp_path, capsys):
    # The folder of a shipped agent stands for that of a run.
    main(["publish", str(PONG), str(tmp_path / "out"), "hub=me/pong"])
    assert re.fullmatch("uploaded to http.*/me/pong", capsys.readouterr().out.splitlines()[-1])
    (files,) = hub.commits["me/pong"].values()
    card = files[CARD].decode()
    assert f'a3cjax.load("{NAME}")' in card
    assert f"a3cjax evaluate {NAME}" in card
    data = huggingface_hub.ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == ("a3cjax", "reinforcement-learning")
    (result,) = data.eval_results or []
    assert (result.dataset_name, result.metric_type) == ("Pong", "mean_reward")


def test_revision_that_is_named_is_loaded(hub):
    files = contents(PONG)
    first = hub.add("me/pong", files)
    config = yaml.safe_load(files["config.yaml"]) | {"seed": 77}
    second = hub.add("me/pong", files | {"config.yaml": yaml.safe_dump(config).encode()})
    names = [f"{NAME}@{first}", f"{NAME}@{second}", NAME]
    assert [load_config(download(name)).seed for name in names] == [4, 77, 77]


def test_agent_that_was_downloaded_needs_no_hub(hub, monkeypatch):
    hub.add("me/pong", contents(PONG))
    folder = download(NAME)
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    assert download(NAME) == folder


@pytest.mark.parametrize("env", ["python:os:system", "gymnasium:antigravity:X-v0"])
def test_downloaded_agent_runs_no_code_of_its_own(hub, tmp_path, env):
    """Not even if it has the mark of a run that this user has begun."""
    run = tmp_path / "run"
    run.mkdir()
    with claimed(run, env):
        pass
    assert is_own(run, env)
    config = yaml.safe_load((PONG / "config.yaml").read_text()) | {"env": env}
    files = contents(PONG) | {"config.yaml": yaml.safe_dump(config).encode()}
    files |= {LOCK: (run / LOCK).read_bytes(), "sitecustomize.py": b"raise SystemExit"}
    hub.add("me/pong", files)
    agent = a3cjax.load(NAME)  # whose parameters may be had
    assert {path.name for path in download(NAME).iterdir()} <= set(PUBLISHED)
    for untrusted in (agent.make_environments, agent.evaluate):
        with pytest.raises(ConfigError, match=r"env must import no code of others, .*trust=true"):
            untrusted()
    del files["environment.json"]  # without it the environment must be made
    hub.add("me/pong", files)
    with pytest.raises(ConfigError, match="env must import no code of others"):
        a3cjax.load(NAME)


@for_each(
    ("name", "told"),
    [
        ("hf://me/nothing", "the hub must have this agent and show it to you, got hf://me/nothing"),
        (f"{NAME}@old", f"the hub must have this revision, got {NAME}@old"),
        ("hf://pong", "an agent on the hub must be hf://<user>/<name>, got hf://pong"),
        ("hf://me/pong/x", "must be hf://<user>/<name>"),
    ],
)
def test_agent_that_is_not_there_is_refused_in_one_line(hub, capsys, name, told):
    hub.add("me/pong", contents(PONG))
    with pytest.raises(SystemExit):
        main(["evaluate", name, "num_episodes=1"])
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert told in line


def test_hub_out_of_reach_is_said_in_one_line(hub, monkeypatch):
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    for ask in (lambda: download(NAME), lambda: upload(PONG, "me/pong")):
        with pytest.raises(ConfigError, match=r"^[^\n]*me/pong: .*Connect[^\n]*$"):
            ask()


def test_upload_is_refused_before_anything_is_written(hub, tmp_path, monkeypatch, capsys):
    def refuse(repository):
        with pytest.raises(SystemExit, match="2"):
            main(["publish", str(PONG), str(tmp_path / "out"), f"hub={repository}"])
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert refuse("pong") == "error: hub must be <user>/<name>, got pong.\n"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
    assert re.fullmatch(r"error: hub=... needs a token: HF_TOKEN, .*\n", refuse("me/pong"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert re.fullmatch(r"error: .* comes with the extra hub: .*\n", refuse("me/pong"))
    assert not hub.asked


@for_each(
    ("settings", "words"),
    [
        ({}, "sampled"),
        ({"best": True, "sticky_actions": 0.25}, "best-sampled-sticky0.25"),
        ({"max_episode_steps": 3}, "sampled-steps3"),
    ],
)
def test_scores_of_an_agent_on_the_hub_lie_in_the_current_folder(settings, words):
    result = {"actions": "sampled", "num_episodes": 3}
    path = default_path(NAME, EvaluateSettings(**settings), result)
    assert path == Path(f"pong-evaluation-{words}-3.json")


def test_card_names_a_folder_where_there_is_no_hub():
    card = make_model_card(load_config(PONG), read_summary(PONG), "my pong")
    assert 'a3cjax.load("my pong")' in card
    assert "a3cjax evaluate 'my pong'" in card
