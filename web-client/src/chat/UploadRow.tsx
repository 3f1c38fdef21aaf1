// One file on its way: name, size, progress in numbers, retry and cancel.
import { fileSize } from '../core/files/upload';
import { Icon } from '../ui/Icon';
import { useLanguage, useT } from '../ui/store';
import type { UploadItem } from './uploads';

export function UploadRow({ upload, onRetry, onCancel }: { upload: UploadItem; onRetry: () => void; onCancel: () => void }) {
  const t = useT();
  const language = useLanguage();
  const percent = Math.round(upload.share * 100);
  return (
    <li className="msg" data-own data-testid="upload" data-state={upload.state}>
      <div className="bubble upload">
        <span className="file-icon"><Icon name="file" /></span>
        <span className="upload-text">
          <span className="file-name">{upload.file.name}</span>
          {upload.state === 'sending' ? <progress max={100} value={percent} aria-label={t('chat.uploading', { name: upload.file.name })} /> : null}
          <span className="file-meta num">
            {upload.state === 'failed' ? t('chat.upload_failed') : upload.state === 'too_large' ? t('chat.too_large')
              : t('chat.upload_progress', { percent, size: fileSize(upload.file.size, language) })}
          </span>
        </span>
      </div>
      <span className="msg-meta">
        {upload.state === 'failed' ? <button type="button" className="link-btn" onClick={onRetry} data-testid="upload-retry">{t('common.retry')}</button> : null}
        <button type="button" className="link-btn" onClick={onCancel}>{upload.state === 'too_large' ? t('chat.discard') : t('common.cancel')}</button>
      </span>
    </li>
  );
}
