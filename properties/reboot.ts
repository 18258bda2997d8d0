/** Rebooting: a host with systemd as its init, a container with one included. An image being built has nothing to reboot. */
import { z } from 'zod';
import { arg } from './args.ts';
import { atEnd as atEndOf, definePropertyList } from './combinators.ts';
import { type HostReader, type PropertyApplication, defineProperty } from './property.ts';

/** How long a run has for its last words, in seconds. */
const DELAY_SECONDS = 5;

/** The host reboots once, when all else was done. For use with onChange(). */
export const atEnd: () => PropertyApplication = definePropertyList<[]>({
  id: 'reboot.atEnd',
  about:
    'The host reboots when all other properties were applied, once however often it was asked for: onChange(…, reboot.atEnd()). ' +
    'Inside of an image nothing happens. Unapplied: it does not, if it still can be helped.',
  example: [],
  args: [],
  describe: () => 'a reboot at the end',
  properties: () => [atEndOf('reboot', soon(DELAY_SECONDS))],
});

/** The host reboots in so many seconds, each time that this is applied. */
export const soon: (delaySeconds: number) => PropertyApplication = defineProperty<[delaySeconds: number]>({
  id: 'reboot.soon',
  kind: 'posix',
  about:
    'The host reboots in so many seconds, each time that this is applied, so that whoever asked hears the end of it. Inside of an ' +
    'image nothing happens. Unapplied: it does not, if it still can be helped. See reboot.atEnd().',
  example: [60],
  args: [arg('delaySeconds', z.int().min(1).max(86_400), 'seconds from now')],
  describe: (delaySeconds) => `a reboot in ${delaySeconds} s`,
  check: async (host) => !(await host.isLive()),
  apply: async (host, delaySeconds) => {
    // A timer rather than a process: it is there until it fires, and asked for twice it is one still.
    if (await isDue(host)) await host.run(['systemctl', 'stop', TIMER]);
    const timer = ['--unit=buildos-reboot', `--on-active=${delaySeconds}`, '--timer-property=AccuracySec=100ms'];
    await host.run(['systemd-run', '--quiet', '--collect', ...timer, 'systemctl', '--no-block', 'reboot']);
  },
  checkUnapplied: async (host) => !(await host.isLive()) || !(await isDue(host)),
  unapply: async (host) => void (await host.run(['systemctl', 'stop', TIMER])),
});

const TIMER = 'buildos-reboot.timer';

const isDue = async (host: HostReader): Promise<boolean> =>
  (await host.run(['systemctl', 'is-active', '--quiet', TIMER], { okStatus: 'any' })).status === 0;
