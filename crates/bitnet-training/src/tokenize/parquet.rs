//! Parquet tables with a column `text` or `messages`.

use super::source::{Record, record};
use crate::error::{Result, TrainingError};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Rows of a table, of which only the columns that are read are decoded.
pub(super) struct Rows {
    rows: RowIter<'static>,
    /// Rows still to be given.
    left: u64,
    at: u64,
}

/// Rows that there are.
pub(super) fn count(path: &Path) -> Result<u64> {
    Ok(open(path)?.metadata().file_metadata().num_rows().max(0) as u64)
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| TrainingError::io(path, e))?;
    SerializedFileReader::new(file).map_err(|e| refused(path, &e))
}

fn refused(path: &Path, error: &ParquetError) -> TrainingError {
    TrainingError::data(path, format!("this Parquet file cannot be read: {error}"))
}

impl Rows {
    pub fn open(path: &Path, part: &Range<u64>) -> Result<Self> {
        let reader = open(path)?;
        let schema = reader.metadata().file_metadata().schema();
        let fields: Vec<_> =
            schema.get_fields().iter().filter(|field| ["text", "messages"].contains(&field.name())).cloned().collect();
        if fields.is_empty() {
            return Err(TrainingError::data(path, "this table has neither a column `text` nor `messages`"));
        }
        let columns = Type::group_type_builder(schema.name()).with_fields(fields).build();
        let columns = columns.map_err(|e| refused(path, &e))?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(columns)).map_err(|e| refused(path, &e))?;
        let mut rows = Self { rows, left: part.end - part.start, at: 0 };
        while rows.at < part.start && rows.rows.next().transpose().map_err(|e| refused(path, &e))?.is_some() {
            rows.at += 1;
        }
        Ok(rows)
    }

    pub fn next(&mut self, path: &Path) -> Result<Option<(Record, u64)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(row) = self.rows.next().transpose().map_err(|e| refused(path, &e))? else { return Ok(None) };
        self.left -= 1;
        self.at += 1;
        let place = |problem: String| TrainingError::data(path, format!("row {}: {problem}", self.at));
        Ok(Some((record(&row.to_json_value()).map_err(place)?, 1)))
    }
}
