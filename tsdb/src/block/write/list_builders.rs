//! Builders of list columns whose items are named as the schema names them.

use arrow_array::builder::{ArrayBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder};
use arrow_schema::DataType;

use crate::block::columns::element;

pub(crate) type FloatLists = ListBuilder<Float64Builder>;
pub(crate) type Int32Lists = ListBuilder<Int32Builder>;

/// Lists of 64-bit integers.
pub(crate) fn int_lists() -> ListBuilder<Int64Builder> {
    ListBuilder::new(Int64Builder::new()).with_field(element(DataType::Int64))
}

pub(crate) fn float_lists() -> FloatLists {
    ListBuilder::new(Float64Builder::new()).with_field(element(DataType::Float64))
}

pub(crate) fn int32_lists() -> Int32Lists {
    ListBuilder::new(Int32Builder::new()).with_field(element(DataType::Int32))
}

pub(crate) fn nested<B: ArrayBuilder>(inner: ListBuilder<B>, kind: DataType) -> ListBuilder<ListBuilder<B>> {
    ListBuilder::new(inner).with_field(element(DataType::List(element(kind))))
}
