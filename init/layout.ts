/**
 * Where things are during stage 1. The initramfs is packed by `image/initrd.ts`; what it must hold:
 *
 * ```
 *   /init                    first-steps.sh: makes Node readable, and becomes it. What fails before that ends there.
 *   /rescue.sh               the rescue shell
 *   /main.mjs                the bundle of main.ts
 *   /node                    where Node's file system is mounted; its libraries are in /lib, its loader where the binary
 *                            wants it, both in RAM
 *   /bin/busybox             static: mount, insmod, switch_root, the rescue shell
 *   /modules/load            names of the files beside it, one a line, in the order to load them
 *   /dev/console             c 5 1: stdin, stdout and stderr of PID 1
 *   /dev/null                c 1 3: what Node opens when there is no console at all; it aborts if it cannot
 *   /buildos/payload.json    see {@link Payload}; in the same segment as init
 *   /buildos/node.squashfs   Node
 *   /buildos/layer-1.squashfs …   last, so that a file cut short on its way still holds all that is needed to say so
 * ```
 */

export const BUSYBOX = '/bin/busybox';
export const RESCUE_SCRIPT = '/rescue.sh';
/** Read-only, out of RAM: what is not used of it is never unpacked. */
export const NODE = '/node/node';
/** The folder with the layers of the root. */
export const LAYERS = '/buildos';
export const PAYLOAD_JSON = '/buildos/payload.json';
/** The read-only layers of the root, `-1` the lowest; and the tmpfs with what is written above them. */
export const LOWER = '/overlay/lower';
export const UPPER = '/overlay/upper';
/** Where both are put together, and what becomes `/`. */
export const NEWROOT = '/newroot';
/** An empty file in the image; Node is bound over it. */
export const IMAGE_NODE = '/usr/lib/buildos/node';

/** /buildos/payload.json: what the root must be made of, the lowest layer first. */
export interface Payload {
  readonly buildId: string;
  readonly layers: readonly Layer[];
}

/** A squashfs in {@link LAYERS}. */
export interface Layer {
  readonly name: string;
  readonly size: number;
  readonly sha256: string;
}
