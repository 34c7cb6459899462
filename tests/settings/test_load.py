"""Settings from their sources: who wins, who is named, and what is refused."""

import tomllib
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormtracks.settings.campaign import CampaignSettings, DataSettings, Season, parse_numbers
from stormtracks.settings.errors import SettingsError
from stormtracks.settings.load import SITE_VARIABLE, describe_settings, load_settings

NOWHERE = {"HOME": "/nonexistent"}


@pytest.fixture
def campaign_file(tmp_path: Path) -> Path:
    path = tmp_path / "campaign.toml"
    path.write_text(
        'name = "test"\nyears = "2001-2003"\npreset = "original"\n[data]\nroot = "fields"\n'
        "[tracking]\nmin_points = 8\nmax_gap = 1\n",
        encoding="utf-8",
    )
    return path


def test_each_value_comes_from_its_strongest_source(campaign_file: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[data]\nroot = "site-data"\n[run]\nworkers = 8\n[tracking]\nmin_points = 3\n', encoding="utf-8")
    environment = {SITE_VARIABLE: str(site), "STORMTRACKS_TRACKING__MAX_GAP": "2", "STORMTRACKS_RUN__WORKERS": "5"}
    loaded = load_settings(campaign_file, command_line={"run.workers": 3}, environment=environment)
    campaign, origins = loaded.campaign, loaded.origins
    assert (campaign.run.workers, origins["run.workers"]) == (3, "command line")
    assert (campaign.tracking.max_gap, origins["tracking.max_gap"]) == (2, "environment")
    assert (campaign.tracking.min_points, origins["tracking.min_points"]) == (8, f"campaign file {campaign_file}")
    assert (campaign.detection.merge_km, origins["detection.merge_km"]) == (1112.0, "preset original")
    assert (campaign.tracking.method, origins["data.gaps"]) == ("nearest", "default")
    assert campaign.data.root == tmp_path / "fields"
    assert campaign.years == (2001, 2002, 2003)
    alone = load_settings(environment=environment)
    assert alone.campaign.data.root == tmp_path / "site-data"
    assert alone.origins["data.root"] == f"site file {site}"


def test_paths_are_seen_from_the_file_that_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "site.toml").write_text('[cluster]\nkey = "~/.ssh/storm"\n', encoding="utf-8")
    hosts = '[[cluster.hosts]]\nname = "one"\nkey = "keys/one"\n[[cluster.hosts]]\nname = "two"\n'
    (tmp_path / "c.toml").write_text(f'[results]\nroot = "out"\n{hosts}', encoding="utf-8")
    cluster = load_settings(
        tmp_path / "c.toml", environment={SITE_VARIABLE: str(tmp_path / "site.toml")}
    ).campaign.cluster
    assert cluster.certificates == tmp_path / "stormtracks-certs"
    assert cluster.key == tmp_path / "home" / ".ssh" / "storm"
    assert [host.key for host in cluster.hosts] == [tmp_path / "keys" / "one", None]
    given = load_settings(tmp_path / "c.toml", environment=NOWHERE | {"STORMTRACKS_CLUSTER__CERTIFICATES": "certs"})
    assert given.campaign.cluster.certificates == tmp_path.parent / "certs"


def test_the_original_preset_is_the_code_of_2014() -> None:
    campaign = load_settings(command_line={"preset": "original"}, environment=NOWHERE).campaign
    assert campaign.detection.threshold == 2.5e-5
    assert campaign.detection.region == (260, 0, 340, 60)
    assert campaign.detection.merge_km == pytest.approx(5 * 222.39, abs=1)
    assert campaign.tracking.max_speed * 21.6 == pytest.approx(8 * 222.39, abs=1)
    assert (campaign.tracking.min_points, campaign.tracking.max_gap) == (6, 0)
    assert campaign.season == Season(start="06-01", end="12-01")


def test_whatever_can_be_set_can_be_set_in_the_environment() -> None:
    campaign = load_settings(
        environment=NOWHERE
        | {
            "STORMTRACKS_DETECTION__VORTICITY_ORDER": "4",
            "STORMTRACKS_DETECTION__REGION": "350, 0, 20, 60",
            "STORMTRACKS_DETECTION__REFINE": "false",
            "STORMTRACKS_DATA__WIND": "u10m,v10m",
            "STORMTRACKS_DATA__BREAKS": '["1950-01-01"]',
            "STORMTRACKS_SEASON": "DJF",
        }
    ).campaign
    assert (campaign.detection.vorticity_order, campaign.detection.region) == (4, (350, 0, 20, 60))
    assert (campaign.detection.refine, campaign.data.wind) == (False, ("u10m", "v10m"))
    assert (campaign.data.breaks, campaign.season.start) == (("1950-01-01",), "12-01")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"STORMTRACKS_FOO": "1"}, r"unknown setting 'foo' \(environment\)"),
        ({"STORMTRACKS_TRACKING__MIN_PONTS": "1"}, "did you mean 'tracking.min_points'"),
        ({"STORMTRACKS_YEARS": "20x"}, "'20x' is neither a whole number nor a range"),
        ({"STORMTRACKS_YEARS": "2003-2001"}, "runs backwards"),
        ({"STORMTRACKS_MEMBERS": "0"}, r"^setting 'members' = '0' \(environment\): 0 members .*at least 1 is needed$"),
        ({"STORMTRACKS_MEMBERS": "-1"}, "neither a whole number nor a range"),
        ({"STORMTRACKS_RUN__MEMORY_LIMIT": "0.5"}, r"'run.memory_limit' = '0.5' .*greater than or equal to 1$"),
        *(
            (
                {"STORMTRACKS_RUN__BUNDLE": text},
                rf"^setting 'run.bundle' = '{text}' \(environment\): neither .* nor auto$",
            )
            for text in ("0", "-3", "1.5", "all")
        ),
        ({"STORMTRACKS_DETECTION__THRESHOLD": "high"}, r"^setting 'detection.threshold' = 'high' \(environment\): .*$"),
        ({"STORMTRACKS_RUN": "5"}, r"^setting 'run' = '5' \(environment\): a table is needed$"),
        ({"STORMTRACKS_RESULTS__ROOT": "[1]"}, r"'results.root' = \[1\] \(environment\): a path is needed$"),
        ({"STORMTRACKS_SEASON": "DJF", "STORMTRACKS_SEASON__START": "01-01"}, "'season' is set as a whole, to 'DJF'"),
        ({"STORMTRACKS_TRACKING__A__B": "1"}, r"unknown setting 'tracking.a' \(environment\)"),
        ({"STORMTRACKS_TRACKING__MAX_SPEED": "-3"}, r"setting 'tracking.max_speed' = '-3' \(environment\)"),
        (
            {"STORMTRACKS_SEASON": "ABC"},
            r"^setting 'season' = 'ABC' \(environment\): season 'ABC' is not one of year, DJF",
        ),
        (
            {"STORMTRACKS_SEASON": '{"start": "13-01"}'},
            r"'season.start' = '13-01' \(env.*'13-01' is not a day of the year",
        ),
        ({"STORMTRACKS_SEASON__END": "06-31"}, "'06-31' is not a day of the year"),
        (
            {"STORMTRACKS_DETECTION__REGION": "[1, 50, 3, 20]"},
            r"'detection.region' = .*\(environment\): .*south 50 must be below",
        ),
        ({"STORMTRACKS_DETECTION__REGION": "[1, 2"}, "no JSON"),
        ({"STORMTRACKS_DATA__BREAKS": '["tomorrow"]'}, "is not a day as YYYY-MM-DD"),
        ({"STORMTRACKS_DATA__BREAKS": "2001-13-45"}, r"'data.breaks' = .*\(environment\): break '2001-13-45' is not"),
        ({"STORMTRACKS_DATA__BREAKS": "2001-02-31"}, "'2001-02-31' is not a day"),
        (
            {"STORMTRACKS_DATA__VARIABLE": "x", "STORMTRACKS_DATA__WIND": '["u", "v"]'},
            r"^setting 'data' \(environment\): give either variable or wind, not both$",
        ),
        ({"STORMTRACKS_NAME": "../x"}, "setting 'name'"),
        ({SITE_VARIABLE: "/nonexistent/site.toml"}, "cannot read site file"),
        ({"STORMTRACKS_PRESET": "modern"}, "setting 'preset'"),
    ],
)
def test_what_is_wrong_is_named_with_its_source(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(environment=NOWHERE | environment)


@pytest.mark.parametrize(
    ("layout", "bundle", "largest"),
    [
        ("c20", "auto", 56),
        ("c20v3", "auto", 1),
        ("cf", "auto", 1),
        ("c20", "8", 8),
        ("cf", "8", 8),
        ("c20v3", "100", 56),
        ("c20", "1", 1),
    ],
)
def test_members_travel_together_where_they_share_a_pass_or_as_it_is_set(
    layout: str, bundle: str, largest: int
) -> None:
    given = {"STORMTRACKS_DATA__LAYOUT": layout, "STORMTRACKS_RUN__BUNDLE": bundle}
    campaign = load_settings(environment=NOWHERE | given).campaign
    assert campaign.largest_bundle(56) == largest
    assert (
        campaign.settings_hash
        == load_settings(environment=NOWHERE | given | {"STORMTRACKS_RUN__BUNDLE": "auto"}).campaign.settings_hash
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "name",
    [
        *("data.level", "detection.threshold", "detection.merge_km", "detection.region", "tracking.max_speed"),
        *("run.time_limit", "run.memory_limit"),
    ],
)
def test_every_number_is_finite(tmp_path: Path, name: str, value: str) -> None:
    section, _, key = name.partition(".")
    path = tmp_path / "campaign.toml"
    path.write_text(f"[{section}]\n{key} = {f'[1, {value}, 3, 40]' if key == 'region' else value}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=f"^setting '{name}' = {value} .*: .*finite number.*$"):
        load_settings(path, environment=NOWHERE)


def test_a_day_of_any_calendar_is_a_day() -> None:
    assert DataSettings(breaks=("2001-02-30", "2001-01-31")).breaks == ("2001-02-30", "2001-01-31")
    assert Season(start="02-30", end="12-31").year_of(2001, 2, 30) == 2001


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("years = 2000-2012\n", "is not TOML: .*line 1"),
        ("[tracking]\nspeed = 3\n", "unknown setting 'tracking.speed'"),
        ("members = true\n", "setting 'members'"),
    ],
)
def test_a_bad_campaign_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(path, environment=NOWHERE)
    assert str(path) in str(caught.value)
    with pytest.raises(SettingsError, match="cannot read campaign file"):
        load_settings(tmp_path / "absent.toml", environment=NOWHERE)


def test_the_stronger_of_variable_and_wind_stands_alone(campaign_file: Path) -> None:
    loaded = load_settings(campaign_file, command_line={"data.variable": "prmsl"}, environment=NOWHERE)
    assert loaded.campaign.data.variables == ("prmsl",)
    environment = NOWHERE | {"STORMTRACKS_DATA__WIND": '["ua", "va"]'}
    assert load_settings(campaign_file, environment=environment).campaign.data.variables == ("ua", "va")


@given(st.sets(st.integers(1800, 2100), min_size=1))
def test_numbers_read_back_however_they_are_written(numbers: set[int]) -> None:
    expected = tuple(sorted(numbers))
    assert parse_numbers(list(numbers)) == expected
    assert parse_numbers(",".join(map(str, numbers))) == expected
    assert parse_numbers(f"{expected[0]}-{expected[-1]}") == tuple(range(expected[0], expected[-1] + 1))


@pytest.mark.parametrize(
    ("given_as", "members"), [("all", "all"), (12, 12), ("12", 12), ("3-5", (3, 4, 5)), ([7, "1-2"], (1, 2, 7))]
)
def test_members_are_a_count_a_range_a_list_or_all(given_as: object, members: object) -> None:
    assert CampaignSettings.model_validate({"members": given_as}).members == members


@pytest.mark.parametrize(
    ("season", "day", "year"),
    [
        ("year", (2001, 1, 1), 2001),
        ("year", (2001, 12, 31), 2001),
        ("DJF", (2001, 12, 1), 2001),
        ("DJF", (2002, 2, 28), 2001),
        ("DJF", (2002, 3, 1), None),
        ("JJA", (2002, 8, 31), 2002),
        ("SON", (2002, 12, 1), None),
        ({"start": "07-01", "end": "07-01"}, (2002, 6, 30), 2001),
        ({"start": "11-01", "end": "01-01"}, (2002, 12, 31), 2002),
        ({"start": "11-01", "end": "01-01"}, (2002, 1, 1), None),
    ],
)
def test_a_season_over_new_year_belongs_to_the_year_it_starts_in(
    season: object, day: tuple[int, int, int], year: int | None
) -> None:
    assert CampaignSettings.model_validate({"season": season}).season.year_of(*day) == year


def test_the_hash_follows_what_decides_a_result_and_nothing_else() -> None:
    base = CampaignSettings()
    same = CampaignSettings.model_validate(
        {"name": "other", "years": "1900-1950", "members": 3, "data": {"root": "/x"}, "run": {"workers": 9}}
    )
    assert same.settings_hash == base.settings_hash
    assert CampaignSettings.model_validate({"data": {"wind": ["u850", "v850"]}}).settings_hash == base.settings_hash
    for other in ({"season": "DJF"}, {"tracking": {"max_gap": 1}}, {"detection": {"threshold": 1e-5}}):
        assert CampaignSettings.model_validate(other).settings_hash != base.settings_hash


def test_what_is_shown_is_a_campaign_file_that_gives_the_same(campaign_file: Path, tmp_path: Path) -> None:
    loaded = load_settings(campaign_file, environment=NOWHERE)
    for origin in (False, True):
        path = tmp_path / "shown.toml"
        path.write_text("\n".join(describe_settings(loaded, origin=origin)), encoding="utf-8")
        assert load_settings(path, environment=NOWHERE).campaign == loaded.campaign
    assert "min_points = 8" in path.read_text(encoding="utf-8")


def test_every_example_and_preset_is_valid() -> None:
    folder = resources.files("stormtracks.settings")
    for kind in ("presets", "examples"):
        entries = [entry for entry in (folder / kind).iterdir() if entry.name.endswith(".toml")]
        assert entries
        for entry in entries:
            CampaignSettings.model_validate(tomllib.loads(entry.read_text(encoding="utf-8")))


@pytest.mark.parametrize("hosts", ["[1]", '["monkey"]', '[{"name": "one", "key": 7}]'])
def test_hosts_that_are_none_are_refused(hosts: str) -> None:
    with pytest.raises(SettingsError, match=r"cluster\.hosts"):
        load_settings(environment=NOWHERE | {"STORMTRACKS_CLUSTER__HOSTS": hosts})
