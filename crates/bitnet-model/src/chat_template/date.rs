//! `strftime_now`: the date and the time in a prompt, as Python writes them with glibc in the C locale.

use std::fmt::Write;

use chrono::{Local, NaiveDateTime};

/// Codes that mean the same to chrono; those of `%f`, `%s`, `%z` and `%Z` do not. Names have no padding.
const CODES: &str = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyY";

/// `datetime.strftime(format)` of a time without a zone. What is no code stays as it is.
pub(super) fn strftime(format: &str, time: NaiveDateTime) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let code = &rest[at + 1..];
        let flag = code.chars().next().filter(|c| "-_0^#".contains(*c));
        let letter = code.chars().nth(usize::from(flag.is_some()));
        let length = 1 + usize::from(flag.is_some()) + letter.map_or(0, char::len_utf8);
        let from = out.len();
        match letter {
            Some('%') => out.push('%'),
            Some('f') => {
                let _ = write!(out, "{:06}", time.and_utc().timestamp_subsec_micros() % 1_000_000);
            }
            Some('z' | 'Z') => {}
            Some('s') => out.extend(time.and_local_timezone(Local).earliest().map(|time| time.timestamp().to_string())),
            Some(letter) if CODES.contains(letter) => {
                let padding = flag
                    .filter(|c| "-_0".contains(*c) && !"aAbBhpP".contains(letter))
                    .map_or(String::new(), String::from);
                let _ = write!(out, "{}", time.format(&format!("%{padding}{letter}")));
            }
            _ => out.push_str(&rest[at..at + length]),
        }
        if matches!(flag, Some('^' | '#')) && letter != Some('P') {
            // `%#p` is in small letters, the names of days and months in capitals.
            let changed = if flag == Some('#') && letter == Some('p') {
                out[from..].to_lowercase()
            } else {
                out[from..].to_uppercase()
            };
            out.replace_range(from.., &changed);
        }
        rest = &rest[at + length..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code and flag, at the times of `make_goldens.py`.
    #[test]
    fn dates_are_pythons() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/chat_template_data/goldens.json")).unwrap();
        let dates = golden["dates"].as_array().unwrap();
        assert!(dates.len() > 200, "{}", dates.len());
        for case in dates {
            let [time, format, expected] = [0, 1, 2].map(|i| case[i].as_str().unwrap());
            let time: NaiveDateTime = time.parse().unwrap();
            assert_eq!(strftime(format, time), expected, "{format} at {time}");
        }
    }
}
