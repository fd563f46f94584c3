#!/bin/bash
# Installs or removes the Python side of the extension: package, command, .pth file, configuration, model root, and the
# systemd unit of the worker, which `systemctl enable FILE` takes into use.
# The Makefile passes DESTDIR FOLDER PYTHON_SITE SYSCONFDIR MODEL_ROOT.
set -euo pipefail
umask 022

source=$(cd "$(dirname "$0")/../python" && pwd)
package=$DESTDIR$FOLDER/package
command=$DESTDIR$FOLDER/bin/pgml-tune
unit=$DESTDIR$FOLDER/lib/systemd/system/pgml-tune-worker.service
site_file=$DESTDIR${PYTHON_SITE:?is empty: pass PG_CONFIG or PYTHON}/pgml_tune.pth
config=$DESTDIR$SYSCONFDIR/pgml_tune.toml
spool=$(dirname "$MODEL_ROOT")/spool

default_config() {
    cat <<END
# Where pgml_tune keeps its files. Only root may change this.
model_root = "$MODEL_ROOT"
spool_dir = "$spool"
import_dirs = []
END
}

install_package() {
    mkdir -p "$package" "$(dirname "$command")" "$(dirname "$unit")" "$(dirname "$site_file")" "$(dirname "$config")"
    rm -rf "$package/pgml_tune"
    cp -r "$source/pgml_tune" "$package/"
    find "$package" -name __pycache__ -prune -exec rm -r {} +
    chmod -R go+rX "$package"
    echo "$FOLDER/package" > "$site_file"
    # The command runs the package beside it with the environment that `make install-deps` makes.
    cat > "$command" <<END
#!/bin/sh
PYTHONPATH="$FOLDER/package" exec "$FOLDER/venv/bin/python" -P -m pgml_tune.cli "\$@"
END
    chmod 755 "$command"
    sed "s|@FOLDER@|$FOLDER|" "$source/../scripts/pgml-tune-worker.service" > "$unit"
    [ -e "$config" ] || default_config > "$config"

    owner=()
    if [ "$(id -u)" = 0 ] && [ -z "$DESTDIR" ] && id -u postgres > /dev/null 2>&1; then
        owner=(-o postgres -g postgres)
    fi
    [ -d "$DESTDIR$MODEL_ROOT" ] || install -d -m 755 "${owner[@]}" "$DESTDIR$MODEL_ROOT"
    [ -d "$DESTDIR$spool" ] || install -d -m 700 "${owner[@]}" "$DESTDIR$spool"
}

uninstall_package() {
    rm -rf "$DESTDIR$FOLDER/package" "$DESTDIR$FOLDER/venv" "$command" "$unit" "$site_file"
    remove_empty "$(dirname "$unit")" "$DESTDIR$FOLDER/lib/systemd" "$DESTDIR$FOLDER/lib" "$DESTDIR$FOLDER/bin" \
        "$DESTDIR$FOLDER" "$(dirname "$DESTDIR$FOLDER")"
    if default_config | cmp -s - "$config"; then
        rm "$config"
    elif [ -e "$config" ]; then
        echo "kept $config: it was changed"
    fi
    remove_empty "$DESTDIR$spool" "$DESTDIR$MODEL_ROOT" "$(dirname "$DESTDIR$MODEL_ROOT")"
}

remove_empty() {
    local folder
    for folder in "$@"; do
        [ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
    done
}

"$1_package"
