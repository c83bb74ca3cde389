"""Reading cases from a CSV file."""

import pytest

from strokeseg.errors import UserError
from strokeseg.imaging.layouts.manifest import read_manifest


def manifest(folder, text, encoding="utf-8"):
    path = folder / "cases.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_manifest_names_files_beside_itself(tmp_path, encoding):
    path = manifest(
        tmp_path,
        "case,patient,T1,FLAIR,mask,fold,centre\n"
        "b10,anna,b/t1.nii,b/flair.nii,b/mask.nii,test,x\n"
        "\n"
        " b2 ,bert, /a/t1.nii ,a/flair.nii,a/mask.nii,0,\n",
        encoding,
    )
    second, tenth = read_manifest(path, ("FLAIR", "T1"))
    assert (second.name, second.patient, second.fold) == ("b2", "bert", "0")
    assert (tenth.name, tenth.patient, tenth.fold) == ("b10", "anna", "test")
    assert tenth.images == {"FLAIR": tmp_path / "b/flair.nii", "T1": tmp_path / "b/t1.nii"}
    assert tenth.mask == tmp_path / "b/mask.nii"
    assert second.images["T1"].as_posix() == "/a/t1.nii"


def test_without_a_patient_column_every_case_is_its_own_patient(tmp_path):
    (case,) = read_manifest(manifest(tmp_path, "case,T1,mask\nc1,a.nii,m.nii\n"), ("T1",))
    assert (case.patient, case.fold) == ("c1", None)


def test_a_manifest_of_new_patients_needs_no_mask(tmp_path):
    (case,) = read_manifest(manifest(tmp_path, "case,T1\nc1,a.nii\n"), ("T1",), masks=False)
    assert case.mask is None


def test_all_faults_of_the_lines_are_reported_at_once(tmp_path):
    path = manifest(
        tmp_path,
        "case,patient,T1,T2,mask,fold\n"
        "a,p1,1.nii,2.nii,3.nii,0\n"
        "a,p2,4.nii,,5.nii,1\n"
        "../c,p3,1.nii,7.nii,8.nii,one\n"
        "d,p4,9.nii,9.nii,10.nii,01\n",
    )
    with pytest.raises(UserError) as raised:
        read_manifest(path, ("T1", "T2"))
    message = str(raised.value)
    for fault in (
        "line 3: case: case a is already in line 2",
        "line 3: T2 must not be empty",
        "line 4: case must be letters",
        "line 4: T1: file 1.nii is already in line 2",
        "line 4: fold must be 0, 1, ... or test, got 'one'",
        "line 5: T2: file 9.nii is already in line 5",
        "got '01'",
    ):
        assert fault in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"columns \['case', 'T1', 'mask'\] are missing, line 1 has \[\]"),
        ("case;T1;mask\na;b;c\n", r"columns \['case', 'T1', 'mask'\] are missing"),
        ("case,t1,mask\na,b,c\n", r"columns \['T1'\] are missing"),
        ("case,T1,mask\n", "holds no case"),
        ("case,T1,mask\na,b\nc,d,e,f\n", "line 2: must have 3 cells, got 2; line 3: .* got 4"),
        ("case,T1,T1,mask\na,b,c,d\n", r"columns \['T1'\] are there more than once"),
        ('case,T1,mask\na,"b,c\n', "no CSV file"),
    ],
)
def test_manifests_of_another_form_are_refused(tmp_path, text, fault):
    with pytest.raises(UserError, match=fault):
        read_manifest(manifest(tmp_path, text), ("T1",))


def test_unreadable_manifests_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cases\.csv: cannot be read"):
        read_manifest(tmp_path / "cases.csv", ("T1",))
    path = manifest(tmp_path, "case,T1,mask\nä,b,c\n", "latin-1")
    with pytest.raises(UserError, match=r"cases\.csv: is no CSV file in UTF-8"):
        read_manifest(path, ("T1",))
