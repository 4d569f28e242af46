//! Parquet files of plain columns, with the campaign they belong to in their metadata.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::Field;
use parquet::schema::types::Type;

use crate::error::{Error, Result};

/// The key of the metadata that names the campaign.
const CAMPAIGN: &str = "seawall.campaign";

/// A column. No value is missing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Column {
    Text(Vec<String>),
    Number(Vec<i64>),
    Flag(Vec<bool>),
}

impl std::fmt::Display for Column {
    /// The values, for a message.
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(values) => write!(to, "{}", values.join(" ")),
            Self::Number(values) => values.iter().try_for_each(|value| write!(to, "{value}")),
            Self::Flag(values) => values.iter().try_for_each(|value| write!(to, "{value}")),
        }
    }
}

/// Columns of the same length.
pub(crate) type Columns = Vec<(&'static str, Column)>;

/// Writes a table, whole or not at all. The same table gives the same bytes.
pub(crate) fn write(path: &Path, campaign: &str, columns: &Columns) -> Result<()> {
    let bytes = encode(campaign, columns)
        .map_err(|error| Error::content(path, "a table that can be written", error.to_string()))?;
    seawall_files::replace(path, &bytes).map_err(|error| Error::file(path, error))
}

fn encode(campaign: &str, columns: &Columns) -> std::result::Result<Vec<u8>, ParquetError> {
    let fields = columns.iter().map(|(name, column)| {
        let (physical, logical) = match column {
            Column::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Column::Number(_) => (Physical::INT64, None),
            Column::Flag(_) => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        field.with_logical_type(logical).build().map(Arc::new)
    });
    let fields = fields.collect::<std::result::Result<_, _>>()?;
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
    let metadata = KeyValue::new(CAMPAIGN.to_owned(), campaign.to_owned());
    let properties = WriterProperties::builder()
        .set_created_by("seawall".to_owned())
        .set_key_value_metadata(Some(vec![metadata]))
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (_, column) in columns {
        let Some(mut to) = group.next_column()? else { break };
        match column {
            Column::Text(values) => {
                let values: Vec<ByteArray> = values.iter().map(|text| text.as_str().into()).collect();
                to.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
            Column::Number(values) => put::<Int64Type>(&mut to, values)?,
            Column::Flag(values) => put::<BoolType>(&mut to, values)?,
        }
        to.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn put<T: DataType>(
    to: &mut parquet::file::writer::SerializedColumnWriter<'_>,
    values: &[T::T],
) -> std::result::Result<(), ParquetError> {
    to.typed::<T>().write_batch(values, None, None).map(|_| ())
}

/// Reads a table of these columns, which give names and kinds, and must belong to this campaign.
pub(crate) fn read(path: &Path, campaign: &str, columns: Columns) -> Result<Columns> {
    // The crate panics on some damaged files.
    let read = std::panic::catch_unwind(|| decode(path, campaign, columns));
    read.unwrap_or_else(|_| Err(Error::content(path, "a Parquet file", "one that is damaged")))
}

fn decode(path: &Path, campaign: &str, columns: Columns) -> Result<Columns> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let bad = |error: ParquetError| Error::content(path, "a Parquet file", error.to_string());
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let of = metadata.into_iter().flatten().find(|pair| pair.key == CAMPAIGN);
    let of = of.and_then(|pair| pair.value.clone()).unwrap_or_else(|| "no campaign".to_owned());
    if of != campaign {
        return Err(Error::content(path, format!("results of campaign {campaign}"), of));
    }
    let mut read = columns;
    for row in reader.get_row_iter(None).map_err(bad)? {
        let row = row.map_err(bad)?;
        let mut fields = row.get_column_iter();
        for (name, column) in &mut read {
            let found = fields.next().filter(|(found, _)| found == name).map(|(_, field)| field);
            match (column, found) {
                (Column::Text(values), Some(Field::Str(text))) => values.push(text.clone()),
                (Column::Number(values), Some(Field::Long(number))) => values.push(*number),
                (Column::Flag(values), Some(Field::Bool(flag))) => values.push(*flag),
                _ => return Err(Error::content(path, format!("a column {name}"), "another table")),
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Columns {
        vec![
            ("name", Column::Text(vec!["a".into(), "naïve".into()])),
            ("number", Column::Number(vec![-1, i64::MAX])),
            ("flag", Column::Flag(vec![true, false])),
        ]
    }

    fn empty() -> Columns {
        vec![
            ("name", Column::Text(vec![])),
            ("number", Column::Number(vec![])),
            ("flag", Column::Flag(vec![])),
        ]
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_the_same_table_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        write(&path, "c", &table()).unwrap();
        assert_eq!(read(&path, "c", empty()).unwrap(), table());
        assert_eq!(encode("c", &table()).unwrap(), std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_table_of_another_campaign_or_of_other_columns_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        write(&path, "c", &table()).unwrap();
        let foreign = read(&path, "d", empty()).unwrap_err().to_string();
        assert!(foreign.ends_with("expected results of campaign d, got c"), "{foreign}");
        assert!(read(&path, "c", vec![("other", Column::Text(vec![]))]).is_err());
        std::fs::write(&path, b"PAR1 and nothing").unwrap();
        assert!(read(&path, "c", empty()).is_err());
    }

    #[test]
    fn a_table_with_any_byte_damaged_is_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let right = encode("c", &table()).unwrap();
        for (at, flips) in (0..right.len()).flat_map(|at| [1, 0xff].map(|flips| (at, flips))) {
            let mut damaged = right.clone();
            damaged[at] ^= flips;
            std::fs::write(&path, damaged).unwrap();
            let _ = read(&path, "c", empty());
        }
        for length in 0..right.len() {
            std::fs::write(&path, &right[..length]).unwrap();
            assert!(read(&path, "c", empty()).is_err(), "{length} of {} bytes", right.len());
        }
    }
}
