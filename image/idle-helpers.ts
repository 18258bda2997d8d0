/**
 * Helpers of maintainer scripts that have nothing to do for a package that was never there, which takes them two more
 * processes or a Perl with its modules to find out, some ninety times for a root. Their stand-ins see it at once, and call
 * the real ones for all else.
 */

/** dpkg-maintscript-helper(1) moves or removes what an older version of a package has left. */
const MAINTSCRIPT = `
case $1 in
rm_conffile | mv_conffile) ;;
symlink_to_dir | dir_to_symlink) if [ -e "\${2%/}.dpkg-backup" ] || [ -h "\${2%/}.dpkg-backup" ]; then real "$@"; fi ;;
*) real "$@" ;;
esac
at=0 action= version=
for word; do
  case $at in
  0) if [ "$word" = -- ]; then at=1; fi ;;
  1) action=$word at=2 ;;
  2) version=$word at=3 ;;
  esac
done
case "$DPKG_MAINTSCRIPT_NAME $action $version" in
'preinst install ' | 'postinst configure ') exit 0 ;;
esac
real "$@"`;

/**
 * deb-systemd-helper(1p) unmasks a unit that it has masked itself, and takes one of which it knows nothing for enabled; both
 * it knows from its files.
 */
const SYSTEMD = `
state=/var/lib/systemd/deb-systemd
case "$#:$*" in
2:'unmask '* | 3:'--user unmask '*) if [ ! -e $state-helper-masked ] && [ ! -e $state-user-helper-masked ]; then exit 0; fi ;;
3:'--quiet was-enabled '*) if [ ! -e "$state-helper-enabled/\${3##*/}.dsh-also" ]; then exit 0; fi ;;
4:'--quiet --user was-enabled '*) if [ ! -e "$state-user-helper-enabled/\${4##*/}.dsh-also" ]; then exit 0; fi ;;
esac
real "$@"`;

/**
 * The stand-ins, by name.
 *
 * @param folder - where they are, first in PATH
 */
export function idleHelpers(folder: string): Readonly<Record<string, string>> {
  const script = (program: string, text: string): string => `#!/bin/sh
real() {
  PATH=$(printf %s "$PATH" | sed 's|${folder}:||')
  exec ${program} "$@"
}${text}
`;
  return {
    'dpkg-maintscript-helper': script('dpkg-maintscript-helper', MAINTSCRIPT),
    'deb-systemd-helper': script('deb-systemd-helper', SYSTEMD),
  };
}
