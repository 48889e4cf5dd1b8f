# docker build -t millm . && docker run --rm -p 7860:7860 -v millm-models:/data millm
# With --build-arg REQUIREMENTS=requirements-ray.txt the image can run replicas, too (docs/scaling.md).
# The key that the page and the API ask for is printed at start, unless MILLM_API_KEY is set.
FROM python:3.11-slim

RUN useradd --create-home millm && mkdir /data && chown millm /data
WORKDIR /home/millm/app
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-ray.txt ./
RUN pip install --no-cache-dir -r $REQUIREMENTS
COPY app.py .
COPY millm millm
COPY models models

USER millm
ENV MODEL_CACHE_DIR=/data HOST=0.0.0.0 PORT=7860
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/health', timeout=4)"
CMD ["python", "app.py"]
