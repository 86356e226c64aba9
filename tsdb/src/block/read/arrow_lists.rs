//! Items of Arrow's list arrays as plain slices.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrowPrimitiveType, ListArray, PrimitiveArray};

/// One item of a list of numbers; `None` if it is null or of another type.
pub(crate) fn primitives<T: ArrowPrimitiveType>(list: &ListArray, at: usize) -> Option<&[T::Native]> {
    if list.is_null(at) {
        return None;
    }
    let offsets = list.value_offsets();
    let values: &PrimitiveArray<T> = list.values().as_primitive_opt()?;
    if values.null_count() > 0 {
        return None;
    }
    values.values().get(offsets[at] as usize..offsets[at + 1] as usize)
}

/// One item of a list of lists: the inner lists' offsets and the place of their numbers.
pub(crate) fn nested(list: &ListArray, at: usize) -> Option<(&ListArray, std::ops::Range<usize>)> {
    if list.is_null(at) {
        return None;
    }
    let offsets = list.value_offsets();
    Some((list.values().as_list_opt()?, offsets[at] as usize..offsets[at + 1] as usize))
}
