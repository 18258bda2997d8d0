/** Something that makes a publication impossible. */
export class PublishError extends Error {
  override readonly name = 'PublishError';
  readonly hint: string;

  constructor(message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.hint = hint;
  }
}
