from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ID_NAMESPACE, derived_id


@given(st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.floats())))
def test_a_derived_id_is_the_uuid5_of_its_parts(parts: list[object]) -> None:
    assert derived_id(*parts) == str(uuid.uuid5(ID_NAMESPACE, "|".join(map(str, parts))))
