//! What the section `[console]` says of the organisation.

use std::fs::File;
use std::io::Read as _;

use crate::config::ConfigError;
use crate::config::keys;
use crate::config::values::{Reader, Values};
use crate::redirect::{Branding, LOGO_MAX_BYTES, Logo};

const SECTION: &str = "console";

pub fn read(values: &Values, reader: &Reader) -> Result<Branding, ConfigError> {
    let accent = values.text(SECTION, &keys::CONSOLE_ACCENT);
    Ok(Branding {
        name: values
            .text(SECTION, &keys::CONSOLE_NAME)
            .map(|name| name.trim().to_owned()),
        // The check of the table has read it once.
        accent: accent.and_then(|text| text.parse().ok()).unwrap_or_default(),
        logo: logo(values, reader)?,
    })
}

fn logo(values: &Values, reader: &Reader) -> Result<Option<Logo>, ConfigError> {
    let key = &keys::CONSOLE_LOGO;
    let Some(path) = values.path(SECTION, key, reader) else {
        return Ok(None);
    };
    let wrong = |reason| {
        let value = format!("{:?}", values.text(SECTION, key).unwrap_or_default());
        reader.wrong(key.path(SECTION), value, reason)
    };
    let mut bytes = Vec::new();
    // One byte more than there may be: a larger file is refused without reading on.
    let read = File::open(&path).and_then(|file| file.take(LOGO_MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|cause| wrong(format!("cannot read {}: {cause}", path.display())))?;
    Logo::parse(&bytes).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Overrides, Settings};

    const SVG: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>";

    /// A folder with logos, and with a file whose section has these lines.
    fn load(folder: &Path, section: &str) -> Result<Settings, String> {
        fs::write(folder.join("logo.svg"), SVG).unwrap();
        fs::write(folder.join("photo.jpeg"), b"\xff\xd8\xff\xe0").unwrap();
        fs::write(folder.join("large.svg"), format!("{SVG}{}", " ".repeat(LOGO_MAX_BYTES))).unwrap();
        let path = folder.join("tinyd.toml");
        fs::write(&path, format!("[console]\n{section}\n")).unwrap();
        let overrides = Overrides {
            config: Some(path),
            ..Overrides::default()
        };
        Settings::load(&overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn branding_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let none = load(folder.path(), "").unwrap().branding;
        assert_eq!((&none.name, &none.logo), (&None, &None));
        assert_eq!(none.accent.to_string(), "#2456b8");
        let section = "name = \" Université \"\naccent = \"#FFdd00\"\nlogo = \"logo.svg\"";
        let branding = load(folder.path(), section).unwrap().branding;
        assert_eq!(branding.name.as_deref(), Some("Université"));
        assert_eq!(branding.accent.to_string(), "#ffdd00");
        assert_eq!(branding.logo, Some(Logo::parse(SVG.as_bytes()).unwrap()));
    }

    #[test]
    fn wrong_branding_is_named_with_key_value_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        for (section, parts) in [
            ("name = \"\"", ["console.name", "\"\"", "1 to 80 characters"]),
            ("name = \"a\\nb\"", ["console.name", "\"a\\nb\"", "control characters"]),
            ("accent = \"red\"", ["console.accent", "\"red\"", "#rrggbb"]),
            ("accent = 3", ["console.accent", "3", "a string"]),
            ("logo = \"\"", ["console.logo", "\"\"", "the path of a file"]),
            ("logo = \"none.svg\"", ["console.logo", "\"none.svg\"", "No such file"]),
            ("logo = \".\"", ["console.logo", "\".\"", "cannot read"]),
            (
                "logo = \"photo.jpeg\"",
                ["console.logo", "\"photo.jpeg\"", "neither SVG nor PNG"],
            ),
            (
                "logo = \"large.svg\"",
                ["console.logo", "\"large.svg\"", "larger than 65536 bytes"],
            ),
            ("color = \"#000000\"", ["console.color", "unknown key", "accent"]),
        ] {
            let error = load(folder.path(), section).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{section}: {error}, without {part:?}");
            }
        }
    }

    #[test]
    fn changed_logo_applies_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let running = load(folder.path(), "logo = \"logo.svg\"").unwrap();
        let mut changed = load(folder.path(), "logo = \"logo.svg\"").unwrap();
        assert!(changed.fixed_differences(&running).is_empty());
        changed.branding.logo = None;
        assert_eq!(changed.fixed_differences(&running), ["console.logo"]);
    }
}
