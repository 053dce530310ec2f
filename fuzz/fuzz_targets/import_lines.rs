//! Files of links: every line is a link that can be written and read again, or has a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinyd::internals::{Defaults, FileFormat, LinkWriter, PartnerId, Timestamp, read};

fuzz_target!(|data: &[u8]| {
    let defaults = Defaults {
        now: Timestamp::from_unix(0),
        partner: Some(PartnerId(7)),
    };
    for format in [FileFormat::JsonLines, FileFormat::Csv] {
        let Ok(lines) = read(format, data, defaults) else {
            continue;
        };
        for line in lines.filter_map(Result::ok) {
            match line.link {
                Ok(link) => {
                    let mut written = Vec::new();
                    let mut writer = LinkWriter::new(FileFormat::JsonLines, &mut written).unwrap();
                    writer.write(&link).unwrap();
                    writer.finish().unwrap();
                    let again = read(FileFormat::JsonLines, written.as_slice(), defaults)
                        .unwrap()
                        .next();
                    assert_eq!(again.unwrap().unwrap().link, Ok(link));
                }
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
    }
});
