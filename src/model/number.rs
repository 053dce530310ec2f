//! Whole numbers, as clients write them.

/// Digits of the largest number of 64 bits.
const DIGITS_MAX: usize = 19;

/// Reads a whole number of at most 64 bits. As PHP's `(int)`, it drops a fraction and knows exponents: languages whose
/// numbers are floating-point write `1900000000.0` and `1.9e9`. Unlike it, it refuses text that is not a number.
pub fn whole_number(text: &str) -> Option<i64> {
    let (is_negative, unsigned) = without_sign(text.trim());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    // Where the point is once the exponent has moved it; what stands after it is dropped.
    let point = i64::try_from(whole.len()).ok()?.saturating_add(exponent);
    let digits = whole.bytes().chain(fraction.bytes());
    let zeros = digits.clone().take_while(|digit| *digit == b'0').count();
    let significant = digits.skip(zeros);
    let length = point.saturating_sub(i64::try_from(zeros).ok()?);
    let length = if significant.clone().next().is_none() {
        0
    } else {
        length
    };
    let length = usize::try_from(length.max(0)).ok()?;
    if length > DIGITS_MAX {
        return None;
    }
    let padded = significant.chain(std::iter::repeat(b'0')).take(length);
    let number = padded.fold(0_i128, |number, digit| number * 10 + i128::from(digit - b'0'));
    i64::try_from(if is_negative { -number } else { number }).ok()
}

/// Whether a number is negative, and what follows its sign.
fn without_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// An exponent; one that is too large for any number stands for the largest.
fn exponent_of(text: &str) -> Option<i64> {
    let (is_negative, digits) = without_sign(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let exponent = digits.parse().unwrap_or(i64::MAX);
    Some(if is_negative { -exponent } else { exponent })
}

/// A number as people read it: 1,200,000.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 12, 999, 1_000, 123_456, 1_234_567];
        let texts = numbers.map(grouped);
        assert_eq!(texts, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn fractions_are_dropped_towards_zero() {
        for (text, number) in [
            ("1900000000", 1_900_000_000),
            (" 7 ", 7),
            ("+7", 7),
            ("-0", 0),
            ("1900000000.0", 1_900_000_000),
            ("1.9", 1),
            ("-1.5", -1),
            ("-0.9", 0),
            (".5", 0),
            ("5.", 5),
            ("1.9e9", 1_900_000_000),
            ("1.9E+9", 1_900_000_000),
            ("19e-1", 1),
            ("1e-999999999999999999999", 0),
            ("0e999999999999999999999", 0),
            ("0.000000000000000000000000019e35", 1_900_000_000),
            ("000000000000000000000000000001", 1),
            ("9223372036854775807.9", i64::MAX),
            ("-9223372036854775808.9", i64::MIN),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
    }

    #[test]
    fn text_without_a_number_is_refused() {
        for text in [
            "",
            " ",
            "abc",
            "12abc",
            "0x10",
            "1,5",
            "1.2.3",
            ".",
            "-",
            "+",
            "--1",
            "e9",
            "1e",
            "1e+",
            "1e1.5",
            "NaN",
            "inf",
            "1 2",
            "٣",
            "1_000",
            "9223372036854775808",
            "-9223372036854775809",
            "1e19",
            "1e999999999999999999999",
        ] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_number_is_total(text in "[-+.eE0-9 ]{0,40}|\\PC{0,10}") {
            let _ = whole_number(&text);
        }

        #[test]
        fn every_number_reads_back(number: i64, fraction in "(\\.[0-9]{0,9})?") {
            prop_assert_eq!(whole_number(&format!("{number}{fraction}")), Some(number));
        }
    }
}
