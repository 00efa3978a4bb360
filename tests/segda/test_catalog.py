"""Names are looked up among ours, among what installed packages offer, and as dotted names."""

import sys
import textwrap
from abc import ABC, abstractmethod

import pytest

from segda.catalog import Catalog, function, instance_of, maker_of, subclass_of
from segda.errors import ConfigError, GuestError, UnknownNameError


class Boat(ABC):
    Config: type

    @abstractmethod
    def sail(self) -> str: ...


class Ferry(Boat):
    Config = dict

    def sail(self) -> str:
        return "there and back"


BOATS = Catalog("boat", group="segda.boats", built_in={"ferry": Ferry}, check=subclass_of(Boat, config=dict))
FLEET = Catalog("fleet", group="segda.fleets", built_in={"ours": Ferry()}, check=instance_of(Boat))
YARDS = Catalog("yard", group="segda.yards", built_in={"ours": Ferry}, check=maker_of(Boat))
SONGS = Catalog("song", group="segda.songs", built_in={"sha": lambda: "nty"}, check=function)

JUNK = """
    from {here} import Boat

    class Junk(Boat):
        Config = dict

        def sail(self):
            return "before the wind"

    class Raft(Boat):
        Config = dict

    class Log(Boat):
        def sail(self):
            return "nowhere"

    class Harbor:
        Nested = Junk

    def hum():
        return "mm"
"""


@pytest.fixture
def write(guest_folder, monkeypatch):
    """Return a function that writes a module into a folder where guests are found."""
    monkeypatch.setitem(sys.modules, "boats_of_the_test", sys.modules[__name__])

    def write(name: str, text: str) -> None:
        (guest_folder / f"{name}.py").write_text(textwrap.dedent(text).replace("{here}", "boats_of_the_test"))

    return write


def test_ours_are_found_and_listed_first(write, install):
    write("junks", JUNK)
    install("harbor", "[segda.boats]\njunk = junks:Junk\n")
    assert BOATS["ferry"] is Ferry
    assert list(BOATS) == ["ferry", "junk"]
    assert len(BOATS) == 2


def test_a_dotted_name_is_imported(write):
    write("junks", JUNK)
    assert BOATS["junks:Junk"]().sail() == "before the wind"
    assert BOATS["junks:Harbor.Nested"] is BOATS["junks:Junk"]
    assert SONGS["junks:hum"]() == "mm"
    assert "junks:Junk" in BOATS
    assert list(BOATS) == ["ferry"]


def test_an_installed_package_offers_a_name(write, install):
    write("junks", JUNK)
    install("harbor", "[segda.boats]\njunk = junks:Junk\n")
    assert BOATS["junk"]().sail() == "before the wind"
    assert "junk" in BOATS
    assert "junk" not in SONGS


def test_a_subclass_stands_for_one_instance_of_it(write):
    write("junks", JUNK + "\n    one = Junk()")
    assert FLEET["junks:Junk"].sail() == "before the wind"
    assert FLEET["junks:Junk"] is FLEET["junks:Junk"]
    assert FLEET["junks:one"] is not FLEET["junks:Junk"]


def test_a_guest_is_imported_when_it_is_looked_up_and_not_before(write, install):
    write("sinking", "raise RuntimeError('water')")
    install("wreck", "[segda.boats]\nwreck = sinking:Wreck\n")
    assert list(BOATS) == ["ferry", "wreck"]
    assert BOATS["ferry"] is Ferry
    assert "fery" not in BOATS
    assert "sinking" not in sys.modules
    with pytest.raises(
        GuestError, match=r"boat 'wreck' of wreck 1.2: importing sinking failed with RuntimeError: water"
    ):
        BOATS["wreck"]


def test_what_is_broken_is_left_out_of_what_is_usable(write, install, caplog):
    write("junks", JUNK)
    write("sinking", "raise RuntimeError('water')")
    install("wreck", "[segda.boats]\nwreck = sinking:Wreck\njunk = junks:Junk\n")
    assert list(BOATS.usable()) == ["ferry", "junk"]
    assert "wreck 1.2" in caplog.text


def test_ours_win_over_an_entry_point_of_the_same_name_and_it_is_said(write, install, caplog):
    write("junks", JUNK)
    install("pirates", "[segda.boats]\nferry = junks:Junk\n")
    assert BOATS["ferry"] is Ferry
    assert list(BOATS) == ["ferry"]
    assert (
        "boat 'ferry' of pirates 1.2 has the name of one of ours, which is used; its dotted name is junks:Junk"
        in caplog.text
    )


def test_two_packages_that_offer_the_same_name_are_both_named(write, install):
    write("junks", JUNK)
    install("harbor", "[segda.boats]\njunk = junks:Junk\n")
    install("pirates", "[segda.boats]\njunk = junks:Harbor.Nested\n", version="0.3")
    assert list(BOATS) == ["ferry", "junk"]
    with pytest.raises(GuestError) as error:
        BOATS["junk"]
    assert "harbor 1.2 and pirates 0.3" in str(error.value)
    assert BOATS["junks:Junk"]().sail() == "before the wind"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fery", "unknown boat 'fery' (did you mean 'ferry'?); known: ferry"),
        (3, "unknown boat 3; known: ferry"),
        (["sloop"], "unknown boat ['sloop']; known: ferry"),
        ("junks.Junk", "unknown boat 'junks.Junk'; known: ferry"),
        ("junks:", "unknown boat 'junks:'; known: ferry"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_one(name, message):
    with pytest.raises(UnknownNameError) as error:
        BOATS[name]
    assert str(error.value) == message
    assert isinstance(error.value, ConfigError)
    assert name not in BOATS
    assert BOATS.get(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("junk:Junk", "boat 'junk:Junk': there is no module 'junk'; put junk.py into {folder}, put its folder on PYTHONPATH"),
        ("junks.sub:Junk", "boat 'junks.sub:Junk': there is no module 'junks.sub'; put junks/sub.py into {folder}, put"),
        ("junks:Jonk", "boat 'junks:Jonk': module junks ({folder}/junks.py) has no 'Jonk' (did you mean 'Junk'?); correct"),
        ("junks:Junk.sale", "boat 'junks:Junk.sale': Junk has no 'sale' (did you mean 'sail'?)"),
        ("junks:hum", "boat 'junks:hum' must be a subclass of {here}.Boat, is a function"),
        ("junks:Harbor", "boat 'junks:Harbor' must be a subclass of {here}.Boat, is the class Harbor"),
        ("junks:Raft", "boat 'junks:Raft' must define sail, as {here}.Boat says"),
        ("junks:Log", "boat 'junks:Log' must have a class attribute Config, a subclass of builtins.dict"),
        ("broken:Junk", "boat 'broken:Junk': importing broken failed with ValueError: no wind ({folder}/broken.py:2); correct"),
        ("needy:Junk", "boat 'needy:Junk': importing needy failed with ModuleNotFoundError: No module named 'oars' ("),
        ("script:Junk", "boat 'script:Junk': importing script failed with SystemExit: 0 ({folder}/script.py:2);"),
        ("garbled:Junk", "boat 'garbled:Junk': importing garbled failed with SyntaxError: "),
    ],
)  # fmt: skip
def test_a_guest_that_cannot_be_used_is_told_in_one_line_that_says_what_to_do(write, guest_folder, name, message):
    write("junks", JUNK)
    write("broken", "def sail():\n    raise ValueError('no wind')\nsail()\n")
    write("needy", "import oars\n")
    write("script", "import sys\nsys.exit(0)\n")
    write("garbled", "class Junk(:\n")
    with pytest.raises(GuestError) as error:
        BOATS[name]
    text = str(error.value)
    assert text.startswith(message.format(folder=guest_folder, here=__name__))
    assert "\n" not in text


def test_a_function_or_a_class_makes_an_instance(write):
    write("junks", JUNK)
    assert YARDS["junks:hum"]() == "mm"
    assert YARDS["junks:Junk"]().sail() == "before the wind"
    with pytest.raises(GuestError, match="yard 'junks:Raft' must define sail"):
        YARDS["junks:Raft"]
    with pytest.raises(GuestError, match="yard 'junks:Harbor' must be a subclass of"):
        YARDS["junks:Harbor"]
    with pytest.raises(GuestError, match="known to that program alone, other processes need a file"):
        YARDS["__main__:Nothing"]


def test_what_is_no_instance_and_no_function_is_told(write):
    write("junks", JUNK)
    with pytest.raises(
        GuestError, match=r"fleet 'junks:hum' must be an instance or a subclass of .*Boat, is a function"
    ):
        FLEET["junks:hum"]
    with pytest.raises(GuestError, match="fleet 'junks:Raft' must define sail"):
        FLEET["junks:Raft"]
    with pytest.raises(GuestError, match="song 'junks:Junk' must be a function, is the class Junk"):
        SONGS["junks:Junk"]


def test_a_folder_of_guests_hides_no_module_that_python_finds_without_it(write, guest_folder):
    write("textwrap", "raise RuntimeError('hidden')")
    sys.modules.pop("textwrap")
    assert callable(SONGS["textwrap:dedent"])
    assert sys.path[-1] == str(guest_folder)
