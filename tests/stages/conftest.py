"""The tiny network of the student's tests."""

from tests.student.conftest import tiny_bert as tiny_bert
