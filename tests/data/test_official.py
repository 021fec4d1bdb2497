"""The official files of CIFAR, MNIST and SVHN: generated ones read right, malicious and damaged ones refused."""

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from linfair.data import load_data
from linfair.data.core import DataError
from linfair.data.official import CIFAR10, CIFAR100, MNIST, SVHN, unpickle
from linfair.data.torchvision import torchvision

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]
FOLDER = CIFAR10.folder


class Attack:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_batches_are_read_in_order_with_their_split(tmp_path: Path, write_batches: Writer) -> None:
    """Oracle: the arrays the batches were written from."""
    images, labels = write_batches(tmp_path, each=7)
    read = CIFAR10.read(tmp_path / FOLDER)
    np.testing.assert_array_equal(read.images, images, strict=True)
    np.testing.assert_array_equal(read.fields["label"], labels, strict=True)
    assert read.official.tolist() == [0] * 35 + [1] * 7
    assert len(set(read.same.tolist())) == 42
    assert read.origin == "official batches, 42 of 60,000 images"


def test_the_release_itself_was_pickled_by_python_2_with_text_for_bytes() -> None:
    """A pickle as Python 2 writes it: str opcodes, numpy's old names, the array's content as a str."""
    content = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05"
        b"cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87R"
        b"q\x09(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftbu."
    )
    loaded = unpickle(content)
    assert loaded[b"labels"] == [6, 9]
    np.testing.assert_array_equal(loaded[b"data"], np.frombuffer(b"abcdef", np.uint8).reshape(2, 3), strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_content_is_read_whatever_wrote_it(protocol: int) -> None:
    content = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, (2, "x")]}
    loaded = unpickle(pickle.dumps(content, protocol))
    np.testing.assert_array_equal(loaded[b"data"], content[b"data"], strict=True)
    assert loaded["labels"] == [1, (2, "x")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Attack(os.system, "touch broken-into"), "posix.system"),
        (Attack(eval, "open('broken-into', 'w')"), "__builtin__.eval"),
        (Attack(open, "broken-into", "w"), "(_)?io.open"),
        (Attack(Path.touch, Path("broken-into")), "__builtin__.getattr"),
        ({b"data": Attack(np.load, "x")}, "numpy.load"),
        (np.array([Attack(os.system, "touch broken-into")], dtype=object), "an array of 'O8'"),
        (Attack(np.dtype, "O"), "an array of 'O'"),
        (Attack(__import__("codecs").encode, "x", "rot13"), "something else"),
        (Attack(np._core.multiarray._reconstruct, dict, (0,), b"b"), "__builtin__.dict"),
    ],
)
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    content: object, named: str, tmp_path: Path, write_batches: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_batches(tmp_path)
    (tmp_path / FOLDER / "data_batch_3").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=rf"data_batch_3: the pickle (asks for|holds|builds) {named}"):
        CIFAR10.read(tmp_path / FOLDER)
    assert not (tmp_path / "broken-into").exists()


HUGE = b"\xff\xff\xff\x7f"


@pytest.mark.parametrize(
    "steps",
    {
        "numpy's names called": b"cnumpy\nndarray\n(K\x01tR.",
        "the helper's defaults": b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__Ns\x86b.",
        "the helper's defaults, protocol 0": b"c_codecs\nencode\n(N(dV__defaults__\nNstb.",
        "no array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(K\x01tR.",
        "deep lists": b"\x80\x02" + b"]" * 210_000 + b"a" * 209_999 + b".",
        "deep tuples": b"(" * 200_000 + b"t" * 200_000 + b".",
        "an array in a tuple's place": b"\x80\x02cnumpy\nndarray\n]b.",
        "a place of 2**31 - 1": b"\x80\x02]r" + HUGE + b".",
        "a number of two GiB": b"\x80\x02\x8b" + HUGE + b".",
        "bytes of eight EiB": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        "a buffer of eight EiB": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        "text of two GiB": b"\x80\x02X" + HUGE + b".",
        "a number of 10,000 digits": b"I" + b"9" * 10_000 + b"\n.",
        "a name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        "names that are lists": b"\x80\x04]]\x93.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent name": b"Pname\n.",
        "a persistent object": b"]Q.",
        "the next buffer": b"\x80\x05\x97.",
        "a new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
        "an instance": b"(ios\nsystem\n.",
        "keys whose hash takes 2**60 steps": b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.",
        "items put into an array": pickle.dumps(np.zeros(4, np.uint8), 2)[:-1] + b"K\x00K\x05s.",
        "a shape larger than the content": pickle.dumps(np.zeros(4, np.uint8), 2).replace(b"K\x04\x85", b"K\x05\x85"),
        "fewer values than a step takes": b"\x80\x02Ns.",
        "a place that nothing was put in": b"\x80\x02h\x05.",
        "no value": b".",
    }.items(),
    ids=lambda one: one[0],
)
def test_steps_that_no_batch_has_are_refused(steps: tuple[str, bytes]) -> None:
    """Whatever the steps, nothing is called, nothing of ours changes, and what is asked for is not set aside."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            unpickle(steps[1])
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()
    assert unpickle(pickle.dumps(b"still read", 2)) == b"still read"


@pytest.mark.parametrize("labels", [b"(lp0\ng0\na", b"]q\x01h\x01a", b"]" + b"q\x02h\x02h\x02\x86" * 20])
def test_labels_that_cannot_be_shown_are_refused(labels: bytes, tmp_path: Path, write_batches: Writer) -> None:
    """A list in itself, and a tuple of 2**20 parts: the message holds neither."""
    write_batches(tmp_path)
    data = pickle.dumps(np.zeros((1, 3072), np.uint8), 2)[2:-1]
    path = tmp_path / FOLDER / "data_batch_1"
    path.write_bytes(b"\x80\x02}(U\x04data" + data + b"U\x06labels](" + labels + b"eu.")
    with pytest.raises(DataError, match="data_batch_1") as caught:
        CIFAR10.read(tmp_path / FOLDER)
    assert len(str(caught.value)) < 500


def test_a_batch_larger_than_any_is_not_read(tmp_path: Path, write_batches: Writer) -> None:
    write_batches(tmp_path)
    os.truncate(tmp_path / FOLDER / "data_batch_2", 2**26)
    with pytest.raises(DataError, match="data_batch_2: over 64 MiB"):
        CIFAR10.read(tmp_path / FOLDER)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_batch_is_named(share: float, tmp_path: Path, write_batches: Writer) -> None:
    write_batches(tmp_path)
    path = tmp_path / FOLDER / "test_batch"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="test_batch: damaged or cut short .*linfair data fetch cifar10"):
        CIFAR10.read(tmp_path / FOLDER)


def test_missing_batches_are_named(tmp_path: Path, write_batches: Writer) -> None:
    write_batches(tmp_path)
    for name in ("data_batch_2", "test_batch"):
        (tmp_path / FOLDER / name).unlink()
    with pytest.raises(DataError, match="data_batch_2, test_batch missing; run `linfair data fetch cifar10`"):
        CIFAR10.read(tmp_path / FOLDER)


GOOD = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2]}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "a batch is a dict, this is a list"),
        (
            GOOD | {b"data": np.zeros((3, 1024), np.uint8)},
            r"data must be uint8 of shape \(n, 3072\), got uint8 of shape",
        ),
        (GOOD | {b"data": np.zeros((3, 3072), np.int64)}, "the pickle holds an array of .i8."),
        ({b"labels": [1]}, "data must be .* got NoneType"),
        (GOOD | {b"labels": [0, 1]}, "3 images need a list of as many labels, got 2 of them"),
        (GOOD | {b"labels": None}, "got NoneType"),
        (GOOD | {b"labels": [0, 1, 10]}, r"labels are integers 0\.\.9, found 10"),
        (GOOD | {b"labels": [0, 1, "two"]}, "found .two."),
    ],
)
def test_content_that_is_no_batch_is_refused(
    batch: object, message: str, tmp_path: Path, write_batches: Writer
) -> None:
    write_batches(tmp_path)
    (tmp_path / FOLDER / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=f"data_batch_1: .*{message}"):
        CIFAR10.read(tmp_path / FOLDER)


def test_names_out_of_a_damaged_pickle_stay_on_one_line() -> None:
    with pytest.raises(DataError, match=r"the pickle asks for num\\ny\.nd\\x0carray, which"):
        unpickle(b"\x80\x04\x8c\x05num\ny\x94\x8c\x08nd\x0carray\x94\x93.")


# CIFAR-100


def test_the_hundred_fine_classes_are_read_by_the_same_reader(tmp_path: Path, write_hundred: Writer) -> None:
    """Oracle: the arrays the files were written from; the coarse labels, 0..19, are not taken for fine ones."""
    images, labels = write_hundred(tmp_path, train=300, test=100)
    read = CIFAR100.read(tmp_path / CIFAR100.folder)
    np.testing.assert_array_equal(read.images, images, strict=True)
    np.testing.assert_array_equal(read.fields["label"], labels, strict=True)
    assert read.official.tolist() == [0] * 300 + [1] * 100


def test_a_file_of_fifty_thousand_images_is_read_whole() -> None:
    """As many steps as the release's `train` has: a name, its place and two labels for each image."""
    names = [f"image_s_{number:06}.png".encode() for number in range(50_000)]
    batch = {b"filenames": names, b"fine_labels": [99] * 50_000, b"coarse_labels": [19] * 50_000}
    assert unpickle(pickle.dumps(batch | {b"data": np.zeros((2, 3072), np.uint8)}, 3))[b"filenames"] == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"fine_labels": [0, 1, 100]}, r"labels are integers 0\.\.99, found 100"),
        ({b"labels": [0, 1, 2], b"fine_labels": None}, "got NoneType"),
        ({b"data": Attack(os.system, "touch broken-into")}, "the pickle asks for posix.system"),
    ],
)
def test_a_file_that_is_not_cifar_100s_is_refused(
    change: dict, message: str, tmp_path: Path, write_hundred: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_hundred(tmp_path)
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [0, 1, 2]} | change
    (tmp_path / CIFAR100.folder / "test").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(DataError, match=f"test: .*{message}"):
        CIFAR100.read(tmp_path / CIFAR100.folder)
    assert not (tmp_path / "broken-into").exists()
    (tmp_path / CIFAR100.folder / "test").write_bytes(b"no pickle")
    with pytest.raises(DataError, match="linfair data fetch cifar100"):
        CIFAR100.read(tmp_path / CIFAR100.folder)


# MNIST


def test_mnist_is_read_as_torchvision_reads_it(tmp_path: Path, write_idx: Writer) -> None:
    """Oracles: the arrays the files were written from, and torchvision's own data set, which downloads nothing."""
    images, labels = write_idx(tmp_path / MNIST.folder, train=31, test=12)
    read = MNIST.read(tmp_path / MNIST.folder)
    np.testing.assert_array_equal(read.images, images, strict=True)
    np.testing.assert_array_equal(read.fields["label"], labels)
    assert read.official.tolist() == [0] * 31 + [1] * 12
    assert read.origin == "official files, 43 of 70,000 images"
    for train, number in ((True, 0), (False, 1)):
        theirs = torchvision().datasets.MNIST(tmp_path, train=train, download=False)
        np.testing.assert_array_equal(theirs.data.numpy(), read.images[read.official == number, 0])
        np.testing.assert_array_equal(theirs.targets.numpy(), read.fields["label"][read.official == number])


def test_mnist_keeps_its_split_and_its_one_channel(tmp_path: Path, write_idx: Writer) -> None:
    """20 of 200 generated training images validate, 2 a digit; no image is in two splits."""
    images, labels = write_idx(tmp_path / "mnist")
    data = load_data("mnist", root=tmp_path, seed=3)
    assert data.provenance["counts"] == {"train": [18] * 10, "val": [2] * 10, "test": [4] * 10}
    assert data.input_shape == (1, 28, 28) and data.group_names == data.label_names == tuple("0123456789")
    known = {image.tobytes(): number for number, image in enumerate(images)}
    found = {name: [known[x.numpy().tobytes()] for x in part.x] for name, part in data.splits.items()}
    assert sorted(found["train"] + found["val"]) == list(range(200)) and sorted(found["test"]) == list(range(200, 240))
    for name, part in data.splits.items():
        assert part.y.tolist() == part.a.tolist() == labels[found[name]].tolist()
    assert load_data("mnist", root=tmp_path, seed=4).content != data.content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + bytes(1000)),
        ("train-images-idx3-ubyte", b"\x1f\x8b packed"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02ab"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x28" + b"\x0a" * 40),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\0"),
    ],
)
def test_a_damaged_file_of_mnist_is_named_with_what_to_do(
    name: str, content: bytes, tmp_path: Path, write_idx: Writer
) -> None:
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name[:5]}.*linfair data fetch mnist") as caught:
        MNIST.read(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} missing; run `linfair data fetch mnist`"):
        MNIST.read(tmp_path)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 2**26 + 1)
    with pytest.raises(DataError, match="over 64 MiB"):
        MNIST.read(tmp_path)


# SVHN


def test_files_are_read_with_ten_as_digit_zero(tmp_path: Path, write_mats: Writer) -> None:
    """Oracle: the arrays the files were written from."""
    images, digits = write_mats(tmp_path, train=23, test=11)
    read = SVHN.read(tmp_path)
    np.testing.assert_array_equal(read.images, images, strict=True)
    np.testing.assert_array_equal(read.fields["label"], digits, strict=True)
    assert read.official.tolist() == [0] * 23 + [1] * 11
    assert read.origin == "official files, 34 of 99,289 images"
    assert not read.images.flags.writeable


@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.999])
def test_a_truncated_file_is_named(share: float, tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path)
    path = tmp_path / "train_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="train_32x32.mat: .*copy the file again") as caught:
        SVHN.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_says_it_is_huge_is_not_unpacked(tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path)
    path = tmp_path / "train_32x32.mat"
    savemat(path, {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": Y})
    content, shape = path.read_bytes(), np.array([32, 32, 3, 4], np.int32).tobytes()
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, np.array([32, 32, 3, 10**8], np.int32).tobytes()))
    with pytest.raises(DataError, match="train_32x32.mat: .*307,200,000,000 values"):
        SVHN.read(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(DataError, match="test_32x32.mat missing; run `linfair data fetch svhn`"):
        SVHN.read(tmp_path)


X, Y = np.zeros((32, 32, 3, 4), np.uint8), np.array([[1], [2], [3], [10]], np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": X}, "y missing"),
        ({"y": Y}, "X missing"),
        ({"X": X.astype(float), "y": Y}, "X must be uint8 .* got float64"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, r"got uint8 of shape \(4, 32, 32, 3\)"),
        ({"X": X, "y": Y[:3]}, r"4 images need y of shape \(4, 1\), got \(3, 1\)"),
        ({"X": X, "y": Y - 1}, r"y holds digits 1\.\.10 .10 is digit 0., found .0."),
        ({"X": X, "y": Y + 1}, r"found .11."),
    ],
)
def test_content_that_is_not_svhn_is_refused(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path, write_mats: Writer
) -> None:
    write_mats(tmp_path)
    savemat(tmp_path / "test_32x32.mat", arrays)
    with pytest.raises(DataError, match=f"test_32x32.mat: .*{message}"):
        SVHN.read(tmp_path)


def test_addresses_and_checksums_are_torchvisions() -> None:
    """Oracle: what torchvision downloads, and what it checks."""
    known, releases = torchvision().datasets, (CIFAR10, SVHN)
    urls, files = (
        {name: one.md5 for r in releases for name, one in getattr(r, kind).items()} for kind in ("urls", "files")
    )
    train, test = (known.SVHN.split_list[split] for split in ("train", "test"))
    assert urls == {known.CIFAR10.url: known.CIFAR10.tgz_md5} | {url: digest for url, _, digest in (train, test)}
    batches = dict(known.CIFAR10.train_list + known.CIFAR10.test_list)
    assert files == batches | {name: digest for _, name, digest in (train, test)}
