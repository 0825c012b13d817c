import pytest
import torch

from candist_core.errors import StudentError
from candist_core.student.device import choose_device


def test_the_cpu_is_used_when_asked_for_and_says_so():
    device = choose_device("cpu")
    assert device.name == "cpu"
    assert device.why.startswith("cpu, asked for; ")


def test_auto_is_cuda_exactly_where_there_is_one():
    assert choose_device("auto").name == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_reason_names_the_type_that_is_used():
    device = choose_device("cpu")
    assert str(device.dtype).removeprefix("torch.") in device.why


def test_bfloat16_is_used_on_a_cpu_exactly_where_it_multiplies_it():
    has_products = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    assert (choose_device("cpu").dtype is torch.bfloat16) == has_products


def test_matrix_products_are_in_the_devices_type_inside_autocast_alone():
    device, a = choose_device("cpu"), torch.ones(2, 2)
    with device.autocast():
        inside = (a @ a).dtype
    assert inside is device.dtype
    assert (a @ a).dtype is torch.float32


@pytest.mark.parametrize("absent", ["cuda:99", "mps"])
def test_an_absent_device_is_refused_with_those_that_are_there(absent):
    if absent == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    with pytest.raises(StudentError, match=rf"student.device: found '{absent}'.* wanted one of cpu.*auto"):
        choose_device(absent)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_named_with_its_model():
    device = choose_device("cuda:0")
    assert device.name == "cuda:0"
    assert torch.cuda.get_device_name(0) in device.why
