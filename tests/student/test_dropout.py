import pytest
import torch
import transformers
from torch.nn.functional import dropout, scaled_dot_product_attention

from candist_core.student.dropout import QuickDropout


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tenth_is_dropped_and_the_rest_makes_up_for_it(dtype):
    with QuickDropout():
        dropped = dropout(torch.ones(100, 1001, dtype=dtype), 0.1)
    # 0.1 in steps of 1/256 is 26/256.
    assert (dropped == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.005)
    assert dropped.float().mean().item() == pytest.approx(1, abs=0.01)


def test_the_gradient_goes_through_what_stayed_alone():
    x = torch.randn(50, requires_grad=True)
    with QuickDropout():
        dropped = dropout(x, 0.5)
    dropped.sum().backward()
    assert x.grad.tolist() == [0.0 if number == 0 else 2.0 for number in dropped.tolist()]


def test_masks_follow_torchs_generator():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with QuickDropout():
            drawn.append((dropout(torch.ones(64), 0.5), dropout(torch.ones(64), 0.5)))
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.3, False), (0.001, False)])
def test_nothing_is_dropped_where_nothing_should_be(p, training):
    x = torch.randn(1000)
    with QuickDropout():
        assert torch.equal(dropout(x, p, training), x)


def test_all_is_dropped_at_a_rate_of_one():
    with QuickDropout():
        assert torch.equal(dropout(torch.ones(9), 1.0), torch.zeros(9))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_attention_equals_torchs_but_for_what_is_dropped(dtype):
    query, key = torch.randn(2, 2, 3, 5, 4)
    hidden = torch.tensor([False, False, False, True, True])
    mask = ~hidden if dtype is torch.bool else torch.zeros(5).masked_fill(hidden, -torch.inf)
    mask = mask.expand(2, 1, 5, 5)
    # With unit vectors as values, what comes out are the weights themselves.
    value = torch.eye(5).expand(2, 3, 5, 5)
    weights = scaled_dot_product_attention(query, key, value, mask)
    with QuickDropout():
        dropped = scaled_dot_product_attention(query, key, value, mask, dropout_p=0.5)
    stays = dropped != 0
    torch.testing.assert_close(dropped[stays], 2 * weights[stays])
    assert not stays[..., 3:].any()
    assert 0.2 < stays[..., :3].float().mean().item() < 0.8


def test_a_row_that_is_hidden_whole_gives_numbers():
    x = torch.randn(1, 1, 4, 4)
    with QuickDropout():
        found = scaled_dot_product_attention(x, x, x, torch.zeros(4, 4, dtype=torch.bool), dropout_p=0.1)
    assert torch.isfinite(found).all()


def test_a_model_takes_both_from_here_and_torchs_generator_is_not_used_up(tiny_bert):
    network = transformers.AutoModel.from_pretrained(tiny_bert).train()
    ids, states, left = torch.arange(6)[None] + 5, [], []
    for _ in range(2):
        torch.manual_seed(3)
        with QuickDropout():
            states.append(network(ids, attention_mask=torch.ones_like(ids)).last_hidden_state)
        left.append(torch.rand(1))
    torch.manual_seed(3)
    torch.randint(2**62, ())
    assert torch.equal(states[0], states[1])
    assert left[0] == left[1] == torch.rand(1)
    network.eval()
    assert not torch.allclose(network(ids).last_hidden_state, states[0])
