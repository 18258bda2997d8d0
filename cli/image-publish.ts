/** `buildos image publish` and `rollback`: what boot servers serve. */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { BIOS_LOADERS, type BootLoaders, UEFI_LOADERS } from '../image/publish/boot-loaders.ts';
import { formatProblem, parseKernelCommandLine, UNKNOWN_OPTION } from '../host/kernel-cmdline.ts';
import { checkWhole, findImage } from '../image/built-image.ts';
import { announceReader } from '../image/in-use.ts';
import { publishImage } from '../image/publish/publish.ts';
import { rollBack } from '../image/publish/rollback.ts';
import type { Published } from '../image/publish/switch-version.ts';
import { DNSMASQ_CONF } from '../image/publish/dhcp-config.ts';
import { VERSIONS_KEPT } from '../image/publish/published-version.ts';
import { checkSigning } from '../image/publish/secure-boot-keys.ts';
import { makeFolder } from '../image/work-folder.ts';
import type { UkiSettings } from '../image/publish/publication.ts';
import { countOf } from './count-of.ts';
import { type Need, needPackages } from './setup.ts';
import { type SigningFlags, signingKeyOf, trustOption } from './signing-key.ts';
import { urlOf } from './url-of.ts';

/** Debian's package `systemd-boot-efi`. */
const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub';

/** An option that says something else than its form allows. */
class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly hint = 'buildos image publish --help says more';
}

interface PublishFlags extends SigningFlags {
  readonly into: string;
  readonly image?: string;
  readonly url?: string;
  readonly option: readonly string[];
  readonly arg: readonly string[];
  readonly host: readonly string[];
  readonly bios: BootLoaders['bios'];
  readonly uefi?: BootLoaders['uefi'];
  readonly loaders: boolean;
  readonly uki?: true;
  readonly iso?: true;
  readonly secureBootKey?: string;
  readonly secureBootCertificate?: string;
  readonly keep: number;
  readonly work: string;
  readonly json?: true;
}

const PUBLISH_HELP = `
Written for one version, which replaces the one before as a whole; older ones are kept, as --keep says, and "image rollback"
goes back to one; "image prune --into" removes some. Boot loaders are put beside it, and dhcp/dnsmasq.conf says what DHCP has to tell firmware about them.

With --uki there is a file buildos.efi besides: kernel, initrd and command line in one EFI program, for UEFI firmware that
boots over PXE or HTTP without a boot loader. Under Secure Boot it is what the firmware checks. With --iso there is a file
buildos.iso: a CD, or a USB stick when it is written to one as it is (dd), for BIOS and UEFI; signed as buildos.efi is.

Examples:
  buildos image publish --into /srv/buildos --url http://192.0.2.1/buildos
  buildos image publish --into /srv/buildos --url http://192.0.2.1/buildos --bios pxelinux --uefi grub
  minisign -G -p /root/buildos.pub -s /root/buildos.key          # once
  openssl req -new -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=buildos/ -keyout db.key -out db.crt     # once
  buildos image publish --into /srv/buildos --url http://192.0.2.1/buildos --sign /root/buildos.key \\
      --secure-boot-key db.key --secure-boot-certificate db.crt
  buildos image publish --into /srv/stick --iso --no-loaders     # dd if=/srv/stick/buildos.iso of=/dev/sdX bs=4M oflag=direct`;

/** `image publish`. */
export function publishCommand(): Command {
  return new Command('publish')
    .description('write an image and its boot configurations (iPXE, PXELINUX, GRUB, UEFI) into a served folder')
    .requiredOption('--into <dir>', 'the folder that your HTTP and TFTP servers serve')
    .option('--image <id>', 'build id, the beginning of it, or a folder; without it the one built last')
    .option('--url <url>', 'how hosts reach the folder over HTTP; without it they read everything over TFTP', urlOf)
    .option('--option <name=value>', 'a buildos option, such as toolchain_url=http://…; may be repeated', collect, [])
    .option('--arg <argument>', 'another kernel argument, such as console=ttyS0; may be repeated', collect, [])
    .option('--host <mac/name=value>', 'a buildos option for one host, by its MAC; may be repeated', collect, [])
    .option('--sign <file>', 'minisign secret key; signs SHA256SUMS, for hosts that are told buildid_trust')
    .option('--password-file <file>', "the key's password, if it has one")
    .addOption(new Option('--bios <loader>', 'which boot loader BIOS hosts get').choices(BIOS_LOADERS).default('ipxe'))
    .addOption(
      new Option('--uefi <loader>', 'which one UEFI hosts get; default: ipxe, or uki with --uki').choices(UEFI_LOADERS),
    )
    .option('--no-loaders', 'no boot loaders, and no dhcp/dnsmasq.conf')
    .option('--uki', 'a unified kernel image, too: buildos.efi')
    .option('--iso', 'an image for CDs and USB sticks, too: buildos.iso')
    .option('--secure-boot-key <file>', 'RSA key (PEM) that signs buildos.efi and buildos.iso; implies --uki')
    .option('--secure-boot-certificate <file>', 'its X.509 certificate (PEM), enrolled in the firmware of the hosts')
    .option('--keep <n>', 'how many older versions stay, the newest', countOf, VERSIONS_KEPT)
    .addOption(workOption())
    .addOption(jsonOption())
    .addHelpText('after', PUBLISH_HELP)
    .action(async (flags: PublishFlags) => {
      const loaders = loadersOf(flags);
      const uki = ukiOf(flags);
      await needPackages(packagesOf(flags, loaders));
      warnOfOptions(flags);
      for (const line of await checkSigning(uki ?? {})) process.stderr.write(`${line}\n`);
      const signWith = await signingKeyOf(flags);
      const hosts = groupHosts(flags.host);
      if ((uki !== undefined || flags.iso === true) && flags.host.length > 0) {
        process.stderr.write('note: buildos.efi and .iso have one command line; --host is for boot loaders only\n');
      }
      const image = await checkWhole(await findImage(flags.work, flags.image));
      await using stack = new AsyncDisposableStack();
      // Of an image by its folder we do not know what else is there.
      if (flags.image?.includes('/') !== true) stack.use(await announceReader(flags.work));
      await makeFolder(flags.into, 'what is published', '--into');
      const published = await publishImage({
        image,
        into: flags.into,
        keep: flags.keep,
        onProgress: (line) => process.stderr.write(`${line}\n`),
        options: Object.fromEntries(flags.option.map((text) => nameAndValue(text, '--option'))),
        kernelArgs: flags.arg,
        hosts,
        ...(flags.url !== undefined && { url: flags.url }),
        ...(signWith !== undefined && { signWith }),
        ...(uki !== undefined && { uki }),
        ...(flags.iso === true && { iso: uki ?? { stub: STUB } }),
        ...(loaders !== undefined && { loaders }),
      });
      report(published, flags, 'published');
      if (signWith === undefined || flags.option.some((text) => text.startsWith('buildid_trust='))) return;
      process.stderr.write(`signed; hosts ask for it with ${trustOption('buildid_trust', signWith)}\n`);
    });
}

/** `image rollback`. */
export function rollbackCommand(): Command {
  return new Command('rollback')
    .description('switch hosts back to an older version that is still in the served folder')
    .argument('[id]', 'its build id or the beginning of it; without it, the one published before the current one')
    .requiredOption('--into <dir>', 'the folder that was given to "image publish"')
    .addOption(jsonOption())
    .action(async (id: string | undefined, flags: { readonly into: string; readonly json?: true }) => {
      report(await rollBack(flags.into, id), flags, 'switched back to');
    });
}

/** What hosts would complain of when they boot, said now. */
function warnOfOptions({ option, host }: PublishFlags): void {
  for (const text of [...option, ...host.map((one) => one.slice(one.indexOf('/') + 1))]) {
    const { problems } = parseKernelCommandLine(`"buildos.${text}"`);
    for (const problem of problems.filter(({ message }) => message === UNKNOWN_OPTION)) {
      process.stderr.write(`warning: ${formatProblem(problem)}\n`);
    }
  }
}

function report(published: Published, flags: { readonly into: string; readonly json?: true }, what: string): void {
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(published, undefined, 2)}\n`);
    return;
  }
  const lines = published.files.map((file) => `  ${file}`).join('\n');
  process.stdout.write(`${what} ${published.buildId} in ${flags.into}:\n${lines}\n`);
  if (!published.files.includes(DNSMASQ_CONF)) return;
  const conf = resolve(flags.into, DNSMASQ_CONF);
  process.stdout.write(`DHCP: conf-file=${conf} in dnsmasq.conf; ${conf} says what to tell any other server\n`);
}

function ukiOf(flags: PublishFlags): UkiSettings | undefined {
  // Whole paths: "rollback" reads them again, in another folder perhaps.
  const [key, certificate] = [flags.secureBootKey, flags.secureBootCertificate].map((file) => file && resolve(file));
  if (flags.uki === undefined && key === undefined && certificate === undefined && flags.uefi !== 'uki')
    return undefined;
  return { stub: STUB, ...(key !== undefined && { key }), ...(certificate !== undefined && { certificate }) };
}

function loadersOf(flags: PublishFlags): BootLoaders | undefined {
  if (!flags.loaders) return undefined;
  return { bios: flags.bios, uefi: flags.uefi ?? (ukiOf(flags) === undefined ? 'ipxe' : 'uki') };
}

function packagesOf(flags: PublishFlags, loaders: BootLoaders | undefined): Need[] {
  return [
    ...(loaders === undefined ? [] : [loaders.bios, loaders.uefi]),
    ...(ukiOf(flags) === undefined ? [] : (['uki'] as const)),
    ...(flags.iso === true ? (['uki', 'iso'] as const) : []),
  ];
}

function workOption(): Option {
  return new Option('--work <dir>', 'folder for caches and images').default('work');
}

function jsonOption(): Option {
  return new Option('--json', 'print the result as JSON');
}

function collect(text: string, before: readonly string[]): string[] {
  return [...before, text];
}

function nameAndValue(text: string, option: string): [string, string] {
  const equals = text.indexOf('=');
  if (equals < 1) throw new UsageError(`${option} "${text}": expected name=value`);
  return [text.slice(0, equals), text.slice(equals + 1)];
}

function groupHosts(texts: readonly string[]): Record<string, Record<string, string>> {
  const hosts: Record<string, Record<string, string>> = {};
  for (const text of texts) {
    const slash = text.indexOf('/');
    if (slash < 1) throw new UsageError(`--host "${text}": expected MAC/name=value`);
    const [name, value] = nameAndValue(text.slice(slash + 1), '--host');
    (hosts[text.slice(0, slash)] ??= {})[name] = value;
  }
  return hosts;
}
