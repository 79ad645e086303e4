"""What a page says of the experts of a prompt and of its answer."""

import pytest

from adapterbot.mole.routes import routes_page
from adapterbot.pages.routing import percent
from adapterbot.records.routes import Routes, TokenRoute


def test_a_token_is_written_where_the_one_before_it_is_read() -> None:
    """As a pull request's shares are counted: the prompt's last position writes a class label."""
    first, second = ((1.0, 0.0),), ((0.0, 1.0),)
    routes = Routes(
        experts=("a", "b"),
        layers=(0,),
        tokens=(
            TokenRoute(token="is it?", written=False, weights=first),
            TokenRoute(token=" answer:", written=False, weights=second),
            TokenRoute(token=" yes", written=True, weights=first),
        ),
    )
    assert routes.shares(written=False) == (0.5, 0.5)
    assert routes.shares(written=True) == (0.0, 1.0)
    assert percent(routes, 1) == "50% of what was read, 100% of what was written"
    only = routes.model_copy(update={"tokens": routes.tokens[:2]})
    assert percent(only, 0) == "50% of what was read"


def test_a_layer_goes_by_its_number_in_the_base() -> None:
    """Experts that leave the first layers alone, as the page on mixtures advises."""
    token = TokenRoute(token="x", written=False, weights=((1.0, 0.0), (0.0, 1.0)))
    page = routes_page(Routes(experts=("a", "b"), layers=(1, 3), tokens=(token,)))
    assert [f">layer&nbsp;{number}<" in page for number in range(4)] == [False, True, False, True]
    with pytest.raises(ValueError, match="each layer"):
        Routes(experts=("a", "b"), layers=(1,), tokens=(token,))
