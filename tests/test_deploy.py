"""What `deploy/` holds is what schedulers take, and what `mmctr train` takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"


def job_set():
    return yaml.safe_load((DEPLOY / "jobset.yaml").read_text())


def test_the_jobs_of_the_job_set_are_valid_ones():
    """By Kubernetes' own schema. (That of a JobSet's few other fields is not in a package.)"""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    (job,) = job_set()["spec"]["replicatedJobs"]
    whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
    validator.validate(whole, "1.31", strict=True)
    whole["spec"]["completionModes"] = "Indexed"
    with pytest.raises(validator.ValidationError):
        validator.validate(whole, "1.31", strict=True)


def test_the_pods_of_the_job_set_find_each_other():
    jobs = job_set()
    (job,) = jobs["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    name, port = jobs["metadata"]["name"], container["ports"][0]["containerPort"]
    assert environment["JAX_COORDINATOR_ADDRESS"] == f"{name}-{job['name']}-0-0.{name}:{port}"
    assert int(environment["JAX_NUM_PROCESSES"]) == spec["completions"] == spec["parallelism"]
    assert spec["completionMode"] == "Indexed"  # which sets JOB_COMPLETION_INDEX
    assert container["command"][:2] == ["mmctr", "train"] and container["command"][-1] == "--resume"


FAKE = """
case $0 in *srun) shift; echo "$@" > {log}; exit {code};; *scontrol) echo "$@" >> {log};; esac
"""


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(0, 0, False), (1, 0, False), (2, 0, False), (75, 0, True), (75, 20, False), (130, 3, True), (137, 0, True)],
)
def test_the_slurm_script_trains_and_is_requeued_where_that_helps(tmp_path, code, restarts, again):
    log = tmp_path / "log"
    for program in ("srun", "scontrol"):
        (tmp_path / program).write_text("#!/bin/bash" + FAKE.format(log=log, code=code))
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    script = ["bash", str(DEPLOY / "slurm.sbatch"), "a config.yaml", "/runs/a", "train.seed=2"]
    assert subprocess.run(script, env=environment, check=False).returncode == code
    ran, *more = log.read_text().splitlines()
    assert ran == "mmctr train --config a config.yaml --run-dir /runs/a --resume train.seed=2"
    assert more == (["requeue 7"] if again else [])


def test_the_slurm_script_says_what_it_takes():
    ended = subprocess.run(["bash", str(DEPLOY / "slurm.sbatch")], capture_output=True, text=True, check=False)
    assert ended.returncode != 0 and "usage: sbatch deploy/slurm.sbatch CONFIG RUN_DIR" in ended.stderr


def test_their_commands_are_ours():
    text = subprocess.run(
        [sys.executable, "-m", "mmctr_jax", "train", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(option in text for option in ("--config", "--run-dir", "--resume", "section.key=value"))
