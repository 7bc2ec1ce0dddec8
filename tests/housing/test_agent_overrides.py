"""Overrides that an agent may write, and hostile ones."""

import pytest
from omegaconf import OmegaConf

from housing.agent.overrides import GROUPS, VALUES, require_allowed
from housing.core.config import CONF
from housing.core.errors import ConfigError

REFUSED_OPTIONS = {"experiment_name", "export", "mlflow", "paths", "parity_tolerance", "n_golden_rows", "n_background_rows"}
REFUSED_OPTIONS |= {"n_sample_rows", "sweep", "tags", "trial"}


@pytest.mark.parametrize(
    "word",
    [
        *(
            "model=linear",
            "model=linear,xgboost",
            "model=choice(linear,xgboost)",
            "model=glob(*)",
            "data=my-flats.v2",
            "search=null",
        ),
        *("experiment=auto", "minutes=0.5", "seed=1,2,3", "split.seeds=[0,1]", "hydra/launcher=processes", "metric='mae'"),
        *("model.estimator.max_depth=range(2,12)", "features.blocks.neighbours.target_means=[1,3],[1,5]", "candidates.knn=null"),
    ],
)
def test_documented_overrides_are_allowed(word: str) -> None:
    require_allowed([word])


@pytest.mark.parametrize(
    "word",
    [
        # references, which Hydra's grammar may make from escapes, and which a sweep parses twice
        *(
            "model.name=${oc.env:HOME}",
            r"model.name=$\{oc.env:HOME}",
            r"model.name=$\{oc.env:HOME\}",
            r"model.name=\${oc.env:HOME}",
        ),
        *("model.name='${oc.env:HOME}'", r'model.name="$\{oc.env:HOME}"', r"model.name=a,$\{oc.env:HOME\}"),
        *(r"model.name=[a,$\{oc.env:HOME\}]", r"model.name=$\\\{oc.env:HOME\\\},b", "model.name=choice(a,'${oc.env:HOME}')"),
        *("model=${oc.env:HOME}", "${oc.env:HOME}=1", "model.${oc.env:HOME}=1", r"model.name=str($\{oc.env:HOME\})"),
        # dictionaries
        *("data={path: /etc/passwd}", "data={path:/etc/passwd},california", "data={source:{_target_:os.system}}"),
        *("model={estimator: {_target_: os.system}}", "model.estimator={_target_:os.system}", "split.seeds=[{a:1}]"),
        *("paths={outputs: /tmp}", "mlflow={tracking_uri: x}", "hydra={run: {dir: /tmp}}"),
        # files, addresses and code
        *("data.path=/etc/passwd", "data.read.sep=x", "data.source=x", "paths.outputs=/tmp", "paths=other", "mlflow=server"),
        *(
            "export=/tmp",
            "hydra.sweep.dir=/tmp",
            "hydra.sweeper.storage=sqlite:////tmp/x",
            "hydra/job_logging=none",
            "output=json",
        ),
        *(
            "model.estimator._target_=os.system",
            "model.estimator._convert_=all",
            "_target_=os.system",
            "model.teacher.filename=x",
        ),
        *("experiment_name=other", "parity_tolerance=1000", "tags.x=1"),
        # choices that are no name of a config file
        *(
            "model=../../secret",
            "model=/etc/passwd",
            "model=[linear,xgboost]",
            "model='a b'",
            "model=choice(linear,'/etc/passwd')",
        ),
        *("data=california,/etc/passwd", "model=choice([linear],xgboost)", "hydra/launcher=/tmp/x", "model="),
        # added, deleted and moved keys
        *("+foo=1", "++foo=1", "foo=1", "+data.path=/etc/passwd", "++data.path=/etc/passwd", "~data", "~model.name=x"),
        *("+model=linear", "model@data=linear", "+model@data.x=linear", "data@paths=california", "+model._target_=os.system"),
        # flags, and what is no override
        *("--config-dir=/tmp", "-m", "--cfg", "", " ", "model", "model=[", "=x", "model=linear\ndata.path=/etc/passwd"),
    ],
)
def test_other_overrides_are_refused(word: str) -> None:
    with pytest.raises(ConfigError):
        require_allowed(["seed=1", word])


def test_each_option_of_a_training_is_either_allowed_or_refused() -> None:
    config = OmegaConf.to_container(OmegaConf.load(f"{CONF}/train.yaml"))
    assert isinstance(config, dict)
    groups = {str(next(iter(entry))) for entry in config.pop("defaults") if entry not in ("_self_", "paths@paths")}
    assert {*map(str, config), *groups} - {"hydra"} - REFUSED_OPTIONS <= {*GROUPS, *VALUES}
    assert not REFUSED_OPTIONS & {*GROUPS, *VALUES}
