//! QR codes of short URLs, as SVG and PNG.

use qrcode::{Color, EcLevel, QrCode};

/// Modules of white around a code (ISO/IEC 18004).
const QUIET_MODULES: usize = 4;
/// Narrowest and widest picture, in pixels.
pub const SIZES: std::ops::RangeInclusive<usize> = 64..=1024;
pub const SIZE_DEFAULT: usize = 512;

/// How much of a code may be damaged: 7, 15, 25 or 30 percent.
pub const LEVELS: [&str; 4] = ["L", "M", "Q", "H"];
pub const LEVEL_DEFAULT: &str = "M";

/// The modules of a code, in rows, with the white around them.
#[derive(Debug)]
pub struct QrPicture {
    width: usize,
    dark: Vec<bool>,
}

impl QrPicture {
    /// `None` if the text is too long for a code.
    pub fn new(text: &str, level: &str) -> Option<Self> {
        let level = match level {
            "L" => EcLevel::L,
            "Q" => EcLevel::Q,
            "H" => EcLevel::H,
            _ => EcLevel::M,
        };
        let code = QrCode::with_error_correction_level(text, level).ok()?;
        let inner = code.width();
        let width = inner + 2 * QUIET_MODULES;
        let colors = code.to_colors();
        let is_dark = |row: usize, column: usize| {
            let (row, column) = (row.checked_sub(QUIET_MODULES)?, column.checked_sub(QUIET_MODULES)?);
            let inside = column < inner;
            inside.then(|| colors.get(row * inner + column)).flatten()
        };
        let cells = (0..width).flat_map(|row| (0..width).map(move |column| (row, column)));
        let dark = cells
            .map(|(row, column)| is_dark(row, column) == Some(&Color::Dark))
            .collect();
        Some(Self { width, dark })
    }

    fn is_dark(&self, row: usize, column: usize) -> bool {
        self.dark.get(row * self.width + column).copied().unwrap_or_default()
    }

    /// A drawing that grows without getting blurred; dark on white in every theme, as cameras need it.
    pub fn svg(&self, size: usize) -> String {
        use std::fmt::Write as _;
        let width = self.width;
        let mut path = String::new();
        for row in 0..width {
            let mut column = 0;
            while column < width {
                let begin = column;
                while self.is_dark(row, column) && column < width {
                    column += 1;
                }
                if column > begin {
                    let length = column - begin;
                    let _ = write!(path, "M{begin} {row}h{length}v1h-{length}z");
                }
                column += 1;
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{size}\" height=\"{size}\" viewBox=\"0 0 {width} \
             {width}\" shape-rendering=\"crispEdges\" role=\"img\" aria-label=\"QR code of the short link\">\
             <path fill=\"#fff\" d=\"M0 0h{width}v{width}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
        )
    }

    /// At least `size` pixels wide, with modules of whole pixels.
    pub fn png(&self, size: usize) -> Option<Vec<u8>> {
        let scale = size.div_ceil(self.width).max(1);
        let pixels = u32::try_from(self.width * scale).ok()?;
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, pixels, pixels);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().ok()?;
        let shade = |row: usize, column: usize| {
            if self.is_dark(row / scale, column / scale) {
                0
            } else {
                u8::MAX
            }
        };
        let side = self.width * scale;
        let rows = (0..side).flat_map(|row| (0..side).map(move |column| shade(row, column)));
        writer.write_image_data(&rows.collect::<Vec<u8>>()).ok()?;
        writer.finish().ok()?;
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svg_and_png_show_the_same_modules() {
        let picture = QrPicture::new("https://links.example.com/tiny/67mk41xj", "H").unwrap();
        let png = picture.png(1).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let dark: Vec<bool> = pixels.iter().map(|shade| *shade == 0).collect();
        assert_eq!(dark, picture.dark);
        // The dark runs of the path cover as many modules.
        let svg = picture.svg(512);
        let (_, path) = svg.rsplit_once("d=\"").unwrap();
        let lengths = path.split('h').skip(1).filter(|run| !run.starts_with('-'));
        let drawn: usize = lengths
            .map(|run| run.split('v').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(drawn, dark.iter().filter(|dark| **dark).count());
    }

    #[test]
    fn code_has_white_around_it_and_the_wanted_size() {
        let picture = QrPicture::new("https://links.example.com/tiny/67mk41xj", LEVEL_DEFAULT).unwrap();
        let edge = |index: usize| (0..picture.width).all(|other| !picture.is_dark(index, other));
        assert!((0..QUIET_MODULES).all(edge) && picture.is_dark(QUIET_MODULES, QUIET_MODULES));
        let png = picture.png(SIZE_DEFAULT).unwrap();
        let info = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert!(info.info().width as usize >= SIZE_DEFAULT);
        assert!(QrPicture::new(&"x".repeat(3_000), "H").is_none());
    }
}
