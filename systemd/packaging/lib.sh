# What the scripts that make packages share; each runs it in the root of the repository.

umask 022
export LC_ALL=C TZ=UTC
# Of gzip and xz.
export COMPRESSION=${COMPRESSION:-9}

# need PROGRAM:HOW...: ends if programs are missing here, before anything is compiled, and says how to get each.
need() {
  local pair missing=()
  for pair; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair%%:*}: ${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  printf '%s: programs are missing here\n' "$0" >&2
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
}

NEEDED_TO_COMPILE=("cargo:https://rustup.rs (Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer)"
  "cc:apt-get install gcc libc6-dev" "make:apt-get install make" "strip:apt-get install binutils" "python3:apt-get install python3")
NEEDED_FOR_DEBIAN=("dpkg-deb:apt-get install dpkg" "dpkg-gencontrol:apt-get install dpkg-dev" "dpkg-shlibdeps:apt-get install dpkg-dev")

# Else jemalloc would not start on a kernel with larger pages than that of the machine that compiled it.
[ "$(uname -m)" != aarch64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# The time in everything that is made: that of the commit, or outside a repository that of the Debian changelog.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null ||
    date -d "$(sed -n 's/^ -- .*>  //p' systemd/debian/changelog | head -n 1)" +%s)
fi
export SOURCE_DATE_EPOCH

# put MODE TARGET FILE...: into the folder TARGET of $root if it ends with a slash, else under that name.
put() {
  local mode=$1 target=$root/$2
  shift 2
  case "$target" in
  */) install -d "$target" && install -m "$mode" -t "$target" "$@" ;;
  *) install -D -m "$mode" "$1" "$target" ;;
  esac
}

# put_man BINARY FOLDER: the man pages, compressed.
put_man() {
  install -d "$root/$2/man8"
  "$1" man "$root/$2"
  cp systemd/tinyd-admin.8 "$root/$2/man8/"
  find "$root/$2" -name '*.[158]' -exec gzip -9n {} +
}

# put_completions BINARY BASH ZSH FISH: for both commands, in these folders.
put_completions() {
  local binary=$1 name shell file
  for name in tinyd tinyd-admin; do
    for file in "bash:$2/$name" "zsh:$3/_$name" "fish:$4/$name.fish"; do
      shell=${file%%:*} file=$root/${file#*:}
      install -d "${file%/*}"
      "$binary" completions "$shell" --name "$name" >"$file"
    done
  done
}

# compile PROFILE KIND FILE: the program, linked dynamically or statically. Only the last step differs.
compile() (
  profile=$1 file=$3 kind=()
  # It is in no program, and another one would have C code compiled anew.
  unset SOURCE_DATE_EPOCH
  target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
  if [ "$2" = static ]; then
    plugins=$target/no-plugins.o
    mkdir -p "$target"
    cc -c -O2 -o "$plugins" systemd/packaging/no-plugins.c
    kind=(-- -C target-feature=+crt-static -C link-arg="$plugins" -C link-arg=-Wl,--wrap=__libc_dlopen_mode)
  fi
  if [ "$profile" = release ]; then
    # The same wherever it is compiled. In a folder of its own: `cargo build --release` has other flags.
    target=$target/dist-build
    home=$(realpath -m "${CARGO_HOME:-$HOME/.cargo}")
    export RUSTFLAGS="--remap-path-prefix=$PWD=/tinyd --remap-path-prefix=$target=/target --remap-path-prefix=$home=/cargo"
    export CFLAGS="-ffile-prefix-map=$target=/target -ffile-prefix-map=$home=/cargo"
  fi
  cargo rustc --profile "$profile" --locked --quiet --bin tinyd --target-dir "$target" "${kind[@]}"
  install -D -m 755 "$target/${profile/#dev/debug}/tinyd" "$file"
  strip --strip-unneeded --remove-section .comment "$file"
)
